use super::*;
use crate::limits::*;

const WHOLE: &str = r#"version = 1
name = "word-count"

[executable]
exec_type = "NativeBinary"
hash = "blake3:0000000000000000000000000000000000000000000000000000000000000000"
entry_point = "wc"
args = ["-w", "/in/text"]

[environment]
memory_limit = 67108864
cpu_limit = 1000
stack_size = 1048576
fd_limit = 16

[resources]
wall_limit = 5000
output_limit = 4096

[determinism]
is_deterministic = true
concurrency = { ForkJoin = { max_threads = 4 } }
floating_point = "NoFloatingPoint"
constraints = ["reads no floats"]
clock_ns = 1700000000000000000
random_seed = "0101010101010101010101010101010101010101010101010101010101010101"

[[inputs]]
name = "text"
hash = "blake3:1111111111111111111111111111111111111111111111111111111111111111"
input_type = { Structured = { schema = "text/plain" } }
size = 12
mount = "/in/text"

[[outputs]]
name = "count"
output_type = "File"
path = "/out/count"
required = false
"#;

fn refusal(text: &str) -> String {
    JobManifest::parse(text).unwrap_err().to_string()
}

fn with(from: &str, to: &str) -> String {
    assert!(WHOLE.contains(from), "{from}");
    WHOLE.replacen(from, to, 1)
}

/// covers: ACT-39, ACT-40, ACT-41, ACT-42, ACT-44
#[test]
fn a_whole_manifest_is_read_and_printed_as_the_same() {
    let manifest = JobManifest::parse(WHOLE).unwrap();
    assert_eq!(manifest.executable.entry_point.as_deref(), Some("wc"));
    assert_eq!(manifest.threads_max(), 4);
    assert_eq!(manifest.determinism.random_seed, Some(Seed([1; 32])));
    assert_eq!(manifest.inputs[0].input_type, InputType::Structured { schema: "text/plain".to_owned() });
    assert!(!manifest.outputs[0].required);
    let printed = toml::to_string(&manifest).unwrap();
    assert_eq!(JobManifest::parse(&printed).unwrap(), manifest, "{printed}");
    assert_eq!(JobManifest::hash(WHOLE), Hash::of(WHOLE.as_bytes()));
}

#[test]
fn what_is_left_out_has_its_default() {
    let short = r#"version = 1
name = "n"
outputs = [{ name = "o", path = "/out/o" }]
executable = { exec_type = "NativeBinary", hash = "blake3:0000000000000000000000000000000000000000000000000000000000000000" }
determinism = { is_deterministic = true }
"#;
    let manifest = JobManifest::parse(short).unwrap();
    assert_eq!(manifest.environment, EnvironmentConfig::default());
    assert_eq!((manifest.threads_max(), manifest.determinism.clock_ns), (1, None));
    assert!(manifest.outputs[0].required && manifest.inputs.is_empty());
}

#[test]
fn an_unknown_key_is_refused_with_its_place() {
    let error = JobManifest::parse(&with("fd_limit", "fd_limits")).unwrap_err();
    assert_eq!((error.line, error.column), (14, 1), "{error}");
    assert!(error.text.contains("fd_limits"), "{error}");
    for (from, to) in [
        ("name = \"word-count\"", "name = \"word-count\"\nretries = 3"),
        ("required = false", "optional = true"),
        ("mount = \"/in/text\"", "mount = \"/in/text\"\nmode = 3"),
        ("is_deterministic = true", "is_deterministic = true\nseed = 1"),
    ] {
        assert!(refusal(&with(from, to)).contains("unknown field"), "{to}");
    }
}

/// covers: ACT-44
#[test]
fn what_this_build_cannot_keep_is_refused_by_name() {
    for (from, to, says) in [
        ("version = 1", "version = 2", "this build reads 1"),
        ("\"NativeBinary\"", "\"Wasm\"", "NativeBinary"),
        ("\"NativeBinary\"", "\"Container\"", "NativeBinary"),
        ("{ Structured = { schema = \"text/plain\" } }", "\"Directory\"", "name each file"),
        ("output_type = \"File\"", "output_type = \"Directory\"", "name each file"),
        ("is_deterministic = true", "is_deterministic = false", "bailiwick run"),
        ("{ ForkJoin = { max_threads = 4 } }", "\"DataParallel\"", "ForkJoin"),
        ("random_seed = \"01", "random_seed = \"0", "64 lower-case"),
        ("mount = \"/in/text\"", "mount = \"in/text\"", "starts with"),
        ("mount = \"/in/text\"", "mount = \"/in/../text\"", "no `..`"),
        ("mount = \"/in/text\"", "mount = \"/in//text\"", "no empty part"),
        ("mount = \"/in/text\"", "mount = \"/\"", "no empty part"),
        ("mount = \"/in/text\"", "mount = \"/out/text\"", "/out is the sandbox's own"),
        ("mount = \"/in/text\"", "mount = \"/proc/self\"", "/proc is the sandbox's own"),
        ("path = \"/out/count\"", "path = \"/out\"", "directly below /out"),
        ("path = \"/out/count\"", "path = \"/out/a/count\"", "directly below /out"),
        ("path = \"/out/count\"", "path = \"/outer/count\"", "directly below /out"),
        ("args = [\"-w\"", "args = [\"-\\u0000\"", "zero byte"),
        ("name = \"word-count\"", "name = \"\"", "a name has"),
    ] {
        let error = refusal(&with(from, to));
        assert!(error.contains(says), "{to}: {error}");
    }
}

#[test]
fn names_and_places_are_used_once() {
    let input = |name: &str, mount: &str| {
        format!(
            "{WHOLE}\n[[inputs]]\nname = \"{name}\"\nhash = \"{}\"\nsize = 1\nmount = \"{mount}\"\n",
            Hash::ZERO
        )
    };
    assert!(JobManifest::parse(&input("other", "/in/other")).is_ok());
    assert!(refusal(&input("text", "/in/other")).contains("inputs[0] has it already"));
    for mount in ["/in/text", "/in", "/in/text/more"] {
        assert!(refusal(&input("other", mount)).contains("over each other"), "{mount}");
    }
    let output =
        |name: &str, path: &str| format!("{WHOLE}\n[[outputs]]\nname = \"{name}\"\npath = \"{path}\"\n");
    assert!(JobManifest::parse(&output("other", "/out/other")).is_ok());
    assert!(refusal(&output("count", "/out/other")).contains("already"));
    assert!(refusal(&output("other", "/out/count")).contains("already"));
}

/// covers: ACT-43
#[test]
fn every_limit_holds_at_its_value_and_not_one_beyond() {
    let number = |key: &str, from: u64, min: u64, max: u64| {
        let line = |value: u64| with(&format!("{key} = {from}"), &format!("{key} = {value}"));
        for fits in [min, max] {
            assert!(JobManifest::parse(&line(fits)).is_ok(), "{key} {fits}");
        }
        for beyond in [min - 1, max + 1] {
            assert!(refusal(&line(beyond)).contains("allowed is"), "{key} {beyond}");
        }
    };
    number("memory_limit", 67_108_864, MEMORY_BYTES_MIN, MEMORY_BYTES_MAX);
    number("cpu_limit", 1000, 1, CPU_MS_MAX);
    number("stack_size", 1_048_576, STACK_BYTES_MIN, STACK_BYTES_MAX);
    number("fd_limit", 16, FILES_MIN.into(), FILES_MAX.into());
    number("wall_limit", 5000, 1, WALL_MS_MAX);
    number("output_limit", 4096, 1, OUTPUT_BYTES_MAX);
    number("max_threads", 4, 1, THREADS_MAX.into());
    let ok = |text: &str| JobManifest::parse(text).is_ok();
    let long = |max: usize| ["x".repeat(max), "x".repeat(max + 1)];
    let [fits, beyond] = long(NAME_BYTES_MAX);
    assert!(ok(&with("word-count", &fits)) && !ok(&with("word-count", &beyond)));
    let [fits, beyond] = long(PATH_BYTES_MAX - "/in/".len());
    assert!(ok(&with("mount = \"/in/text", &format!("mount = \"/in/{fits}"))));
    assert!(!ok(&with("mount = \"/in/text", &format!("mount = \"/in/{beyond}"))));
    let [fits, beyond] = long(SCHEMA_BYTES_MAX);
    assert!(ok(&with("text/plain", &fits)) && !ok(&with("text/plain", &beyond)));
    let [fits, beyond] = long(CONSTRAINT_BYTES_MAX);
    assert!(ok(&with("reads no floats", &fits)) && !ok(&with("reads no floats", &beyond)));
    let [fits, beyond] = long(ARGUMENT_BYTES_MAX - "-w\0\0".len());
    assert!(ok(&with("/in/text\"]", &format!("{fits}\"]"))));
    assert!(!ok(&with("/in/text\"]", &format!("{beyond}\"]"))));
    let list = |count: usize| vec!["\"a\""; count].join(",");
    let arguments = |count| with("\"-w\", \"/in/text\"", &list(count));
    assert!(ok(&arguments(ARGUMENTS_MAX)) && !ok(&arguments(ARGUMENTS_MAX + 1)));
    let constraints = |count| with("\"reads no floats\"", &list(count));
    assert!(ok(&constraints(CONSTRAINTS_MAX)) && !ok(&constraints(CONSTRAINTS_MAX + 1)));
    let more = |count: usize, line: &dyn Fn(usize) -> String| {
        (1..count).fold(WHOLE.to_owned(), |text, n| text + &line(n))
    };
    let zero = Hash::ZERO;
    let input = |n: usize| {
        format!("\n[[inputs]]\nname = \"i{n}\"\nhash = \"{zero}\"\nsize = 1\nmount = \"/in/{n}\"\n")
    };
    assert!(ok(&more(INPUTS_MAX, &input)) && !ok(&more(INPUTS_MAX + 1, &input)));
    let output = |n: usize| format!("\n[[outputs]]\nname = \"o{n}\"\npath = \"/out/{n}\"\n");
    assert!(ok(&more(OUTPUTS_MAX, &output)) && !ok(&more(OUTPUTS_MAX + 1, &output)));
    let padded = |bytes: usize| format!("{WHOLE}#{}", " ".repeat(bytes - WHOLE.len() - 1));
    assert!(ok(&padded(MANIFEST_BYTES_MAX)));
    assert!(refusal(&padded(MANIFEST_BYTES_MAX + 1)).contains("bytes"));
    assert!(refusal(&with("[[outputs]]\nname = \"count\"\noutput_type = \"File\"\npath = \"/out/count\"\nrequired = false\n", "outputs = []")).contains("output"));
}
