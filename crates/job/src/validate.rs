//! What a manifest may say, beyond its form. The first fault is told.

use crate::{
    limits::{
        ARGUMENT_BYTES_MAX, ARGUMENTS_MAX, CONSTRAINT_BYTES_MAX, CONSTRAINTS_MAX, CPU_MS_MAX, FILES_MAX,
        FILES_MIN, INPUTS_MAX, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN, NAME_BYTES_MAX, OUTPUT_BYTES_MAX,
        OUTPUTS_MAX, PATH_BYTES_MAX, SCHEMA_BYTES_MAX, STACK_BYTES_MAX, STACK_BYTES_MIN, THREADS_MAX,
        WALL_MS_MAX,
    },
    manifest::{Concurrency, ExecType, InputType, JobManifest, MANIFEST_VERSION, OutputType},
};

/// Where a job writes; nothing else inside can be written.
pub(crate) const OUT: &str = "/out";
/// What the house puts there itself.
const TAKEN: [&str; 4] = ["/out", "/job", "/proc", "/dev"];

type Fault = String;

pub(crate) fn check(manifest: &JobManifest) -> Result<(), Fault> {
    if manifest.version != MANIFEST_VERSION {
        return Err(format!("version is {}, this build reads {MANIFEST_VERSION}", manifest.version));
    }
    name("name", &manifest.name)?;
    executable(manifest)?;
    inputs(manifest)?;
    outputs(manifest)?;
    let environment = &manifest.environment;
    range("environment.memory_limit", environment.memory_limit, MEMORY_BYTES_MIN, MEMORY_BYTES_MAX)?;
    range("environment.cpu_limit", environment.cpu_limit, 1, CPU_MS_MAX)?;
    range("environment.stack_size", environment.stack_size, STACK_BYTES_MIN, STACK_BYTES_MAX)?;
    range("environment.fd_limit", environment.fd_limit.into(), FILES_MIN.into(), FILES_MAX.into())?;
    range("resources.wall_limit", manifest.resources.wall_limit, 1, WALL_MS_MAX)?;
    range("resources.output_limit", manifest.resources.output_limit, 1, OUTPUT_BYTES_MAX)?;
    determinism(manifest)
}

fn executable(manifest: &JobManifest) -> Result<(), Fault> {
    let executable = &manifest.executable;
    if executable.exec_type != ExecType::NativeBinary {
        return Err(format!(
            "executable.exec_type is {:?}, this build runs NativeBinary",
            executable.exec_type
        ));
    }
    if let Some(entry) = &executable.entry_point {
        text("executable.entry_point", entry, PATH_BYTES_MAX)?;
    }
    count("executable.args", executable.args.len(), ARGUMENTS_MAX)?;
    let bytes: usize = executable.args.iter().map(|arg| arg.len() + 1).sum();
    count("bytes of executable.args", bytes, ARGUMENT_BYTES_MAX)?;
    match executable.args.iter().any(|arg| arg.contains('\0')) {
        true => Err("executable.args: an argument has no zero byte".to_owned()),
        false => Ok(()),
    }
}

fn inputs(manifest: &JobManifest) -> Result<(), Fault> {
    let inputs = &manifest.inputs;
    count("inputs", inputs.len(), INPUTS_MAX)?;
    for (index, input) in inputs.iter().enumerate() {
        let what = format!("inputs[{index}]");
        name(&format!("{what}.name"), &input.name)?;
        path(&format!("{what}.mount"), &input.mount)?;
        if let Some(taken) = TAKEN.iter().find(|taken| is_below(&input.mount, taken)) {
            return Err(format!("{what}.mount: {taken} is the sandbox's own"));
        }
        match &input.input_type {
            InputType::Blob => {}
            InputType::Directory => {
                return Err(format!(
                    "{what}.input_type: this build takes Blob and Structured; name each file"
                ));
            }
            InputType::Structured { schema } => text(&format!("{what}.schema"), schema, SCHEMA_BYTES_MAX)?,
        }
        for (other, before) in inputs.iter().take(index).enumerate() {
            if before.name == input.name {
                return Err(format!("{what}.name: inputs[{other}] has it already"));
            }
            if is_below(&before.mount, &input.mount) || is_below(&input.mount, &before.mount) {
                return Err(format!("{what}.mount: it and that of inputs[{other}] lie over each other"));
            }
        }
    }
    Ok(())
}

fn outputs(manifest: &JobManifest) -> Result<(), Fault> {
    let outputs = &manifest.outputs;
    count("outputs", outputs.len(), OUTPUTS_MAX)?;
    if outputs.is_empty() {
        return Err("outputs: a job without an output has no result".to_owned());
    }
    for (index, output) in outputs.iter().enumerate() {
        let what = format!("outputs[{index}]");
        name(&format!("{what}.name"), &output.name)?;
        path(&format!("{what}.path"), &output.path)?;
        let name = output.path.strip_prefix(OUT).and_then(|rest| rest.strip_prefix('/'));
        if name.is_none_or(|name| name.contains('/')) {
            return Err(format!(
                "{what}.path: a job writes files directly below {OUT}, and makes no folders"
            ));
        }
        match &output.output_type {
            OutputType::File => {}
            OutputType::Directory => {
                return Err(format!(
                    "{what}.output_type: this build keeps File and Structured; name each file"
                ));
            }
            OutputType::Structured { schema } => text(&format!("{what}.schema"), schema, SCHEMA_BYTES_MAX)?,
        }
        for (other, before) in outputs.iter().take(index).enumerate() {
            if before.name == output.name || before.path == output.path {
                return Err(format!("{what}: outputs[{other}] has its name or path already"));
            }
        }
    }
    Ok(())
}

fn determinism(manifest: &JobManifest) -> Result<(), Fault> {
    let determinism = &manifest.determinism;
    if !determinism.is_deterministic {
        return Err(
            "determinism.is_deterministic: what is not cannot be run again and compared; use `bailiwick run`"
                .to_owned(),
        );
    }
    match determinism.concurrency {
        Concurrency::Sequential => {}
        Concurrency::ForkJoin { max_threads } => {
            range("determinism.concurrency.max_threads", max_threads.into(), 1, THREADS_MAX.into())?;
        }
        Concurrency::DataParallel => {
            return Err("determinism.concurrency: this build runs Sequential and ForkJoin".to_owned());
        }
    }
    count("determinism.constraints", determinism.constraints.len(), CONSTRAINTS_MAX)?;
    let each = &determinism.constraints;
    each.iter().try_for_each(|word| text("determinism.constraints", word, CONSTRAINT_BYTES_MAX))
}

fn range(what: &str, value: u64, min: u64, max: u64) -> Result<(), Fault> {
    match (min..=max).contains(&value) {
        true => Ok(()),
        false => Err(format!("{what} is {value}, allowed is {min} to {max}")),
    }
}

fn count(what: &str, value: usize, max: usize) -> Result<(), Fault> {
    if value > max { Err(format!("{what}: {value}, at most {max} are allowed")) } else { Ok(()) }
}

fn name(what: &str, name: &str) -> Result<(), Fault> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    match (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits) {
        true => Ok(()),
        false => Err(format!("{what}: a name has 1 to {NAME_BYTES_MAX} letters, digits, `_`, `-` and `.`")),
    }
}

fn text(what: &str, text: &str, max: usize) -> Result<(), Fault> {
    match (1..=max).contains(&text.len()) && !text.contains(char::is_control) {
        true => Ok(()),
        false => Err(format!("{what}: 1 to {max} bytes without control characters")),
    }
}

/// Absolute and in its one form: no empty part, no `.` or `..`.
fn path(what: &str, path: &str) -> Result<(), Fault> {
    text(what, path, PATH_BYTES_MAX)?;
    let parts = path.strip_prefix('/').ok_or_else(|| format!("{what}: a path inside starts with `/`"))?;
    match parts.split('/').any(|part| matches!(part, "" | "." | "..")) {
        true => Err(format!("{what}: a path has no empty part, no `.` and no `..`")),
        false => Ok(()),
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
