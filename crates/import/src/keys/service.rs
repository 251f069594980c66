use super::{Key, Treat::*};
use crate::report::Fate::{Approximated, Ignored as Passed, Mapped, Refused as Denied};

pub(crate) const SERVICE: &[Key] = &[
    Key {
        names: &["Type"],
        treat: Code(&[Mapped, Approximated, Denied]),
        text: "`simple exec idle` are `runs = \"foreground\"`, `forking` is `\"forks\"`, `oneshot` is `\"once\"`, `notify` and `notify-reload` are `[health] kind = \"sd_notify\"`; `dbus` is foreground: ready when it has started, not when its name is taken",
    },
    Key {
        names: &["ExitType"],
        treat: Code(&[Passed, Denied]),
        text: "`main` is what is done; `cgroup` is refused: a service ends with its main process",
    },
    Key {
        names: &["RemainAfterExit"],
        treat: Code(&[Approximated, Passed, Denied]),
        text: "a `once` program that ended with 0 is done; with `ExecStop=` refused, since nothing is left to stop",
    },
    Key {
        names: &["GuessMainPID"],
        treat: Ignored,
        text: "what is left by a program that forks is found by its `pid_file`, or is the one process left",
    },
    Key {
        names: &["PIDFile"],
        treat: Code(&[Mapped, Passed]),
        text: "`pid_file` of a program that forks; of any other ignored",
    },
    Key {
        names: &["BusName"],
        treat: Code(&[Approximated]),
        text: "the host's bus, `/run/dbus/system_bus_socket`, is granted; nobody waits for the name",
    },
    Key {
        names: &["ExecStart"],
        treat: Code(&[Mapped, Approximated, Denied]),
        text: "`image` and `args`; of several commands of a oneshot the last, the others come `before`; prefixes: `-` approximated, `@` and `+` refused, `!` approximated, `:` mapped; `$VAR` and `${VAR}` are put in from `Environment=` and from the files of `EnvironmentFile=` as they are now",
    },
    Key {
        names: &["ExecStartPre"],
        treat: Code(&[Mapped, Approximated, Denied]),
        text: "`before`, in the service's sandbox and as its user; what would run as root (`+`, or `PermissionsStartOnly=`) is refused, but for `install -d` and `mkdir`, which become `folders`",
    },
    Key {
        names: &["ExecStartPost"],
        treat: Code(&[Mapped, Approximated, Denied]),
        text: "`after`; else as `ExecStartPre=`",
    },
    Key {
        names: &["ExecCondition"],
        treat: Refused,
        text: "a command of `before` that fails is a failed start, not a skipped one; write the test into the program",
    },
    Key {
        names: &["ExecReload"],
        treat: Code(&[Mapped, Approximated, Denied]),
        text: "`kill -SIGNAL $MAINPID` is `reload_signal`, anything else `reload`; several become one `sh` that stops at the first failure; a check before a signal is refused: reload after `CHECK && …`",
    },
    Key {
        names: &["ExecStop"],
        treat: Code(&[Mapped, Approximated, Denied]),
        text: "`kill -SIGNAL $MAINPID` is `stop_signal`, anything else `stop`; several as with `ExecReload=`",
    },
    Key {
        names: &["ExecStopPost"],
        treat: Refused,
        text: "nothing is run after the end; what lies below `/run` and `/tmp` is gone by itself",
    },
    Key {
        names: &["RestartSec"],
        treat: Code(&[Mapped, Approximated]),
        text: "`[restart] delay_ms`, without backoff, as systemd; left out: 100 ms",
    },
    Key {
        names: &["RestartSteps", "RestartMaxDelaySec"],
        treat: Refused,
        text: "set `[restart] backoff` and `max_delay_ms` yourself",
    },
    Key { names: &["RestartMode"], treat: Ignored, text: "dependents are not told of a restart" },
    Key {
        names: &["Restart"],
        treat: Code(&[Mapped, Approximated]),
        text: "`no always on-failure` are `[restart] mode`; `on-abnormal on-abort on-watchdog` are `on_failure`, which also counts an exit code; `on-success` is `always`",
    },
    Key {
        names: &["SuccessExitStatus"],
        treat: Code(&[Approximated, Passed]),
        text: "only 0 is a success; a stop that was asked for is never a failure, and with `Restart=always` it makes no difference",
    },
    Key {
        names: &["RestartPreventExitStatus"],
        treat: Code(&[Approximated, Denied]),
        text: "it is started again until the budget of `[restart]` is spent; refused if that has no end",
    },
    Key { names: &["RestartForceExitStatus"], treat: Refused, text: "use `[restart] mode = \"always\"`" },
    Key {
        names: &["TimeoutStartSec"],
        treat: Code(&[Mapped, Approximated, Passed]),
        text: "`[health] startup_timeout_ms`, at most a day; of a oneshot, which has none, left out is a day",
    },
    Key {
        names: &["TimeoutStopSec"],
        treat: Code(&[Mapped, Approximated]),
        text: "`[health] stop_timeout_ms`, at most a day; left out: 90 s",
    },
    Key { names: &["TimeoutSec"], treat: Code(&[Mapped, Approximated, Passed]), text: "both of the above" },
    Key {
        names: &["TimeoutAbortSec", "TimeoutStartFailureMode", "TimeoutStopFailureMode"],
        treat: Ignored,
        text: "what does not end in time is killed",
    },
    Key {
        names: &["RuntimeMaxSec", "RuntimeRandomizedExtraSec"],
        treat: Refused,
        text: "a service has no longest life; use a timer, or `timeout` before the program",
    },
    Key {
        names: &["WatchdogSec"],
        treat: Code(&[Mapped, Passed, Denied]),
        text: "`[health] watchdog_ms` of `Type=notify`; of any other type refused",
    },
    Key {
        names: &["RootDirectoryStartOnly", "PermissionsStartOnly"],
        treat: Code(&[Approximated, Passed, Denied]),
        text: "commands around the program run as its user; those that would be root's are refused, but for `install -d` and `mkdir`, which become `folders`",
    },
    Key { names: &["NonBlocking"], treat: Refused, text: "sockets are handed over as they were bound" },
    Key {
        names: &["NotifyAccess"],
        treat: Code(&[Mapped, Approximated]),
        text: "any process of the service may speak, since the socket says who it is; `none` is refused by `Type=`",
    },
    Key {
        names: &["Sockets"],
        treat: Code(&[Mapped, Denied]),
        text: "the named socket units of the import become `[[sockets]]`; one that is not imported is refused",
    },
    Key {
        names: &["FileDescriptorStoreMax", "FileDescriptorStorePreserve", "OpenFile"],
        treat: Refused,
        text: "no descriptors are kept or opened for a program but its sockets",
    },
    Key {
        names: &["USBFunctionDescriptors", "USBFunctionStrings"],
        treat: Refused,
        text: "no USB function is set up",
    },
    Key {
        names: &["OOMPolicy"],
        treat: Code(&[Mapped, Approximated]),
        text: "`continue` is what happens; `stop` and `kill` are approximated: one process ends, and the service if it was the main one",
    },
    Key {
        names: &["ReloadSignal"],
        treat: Code(&[Mapped, Denied]),
        text: "`reload_signal` of `Type=notify-reload`",
    },
];

pub(crate) const KILL: &[Key] = &[
    Key {
        names: &["KillMode"],
        treat: Code(&[Mapped, Approximated, Denied]),
        text: "`mixed` is what is done: the main process gets the signal, what is left is killed; `control-group` and `process` are approximated, `none` is refused: nothing outlives its service",
    },
    Key {
        names: &["KillSignal"],
        treat: Code(&[Mapped, Passed, Denied]),
        text: "`stop_signal`: term quit int hup usr1 usr2 winch; `SIGCONT` of a service with a stop command is ignored, others are refused",
    },
    Key {
        names: &["RestartKillSignal", "FinalKillSignal", "WatchdogSignal"],
        treat: Refused,
        text: "a restart stops like any stop, and the last signal is SIGKILL",
    },
    Key {
        names: &["SendSIGHUP"],
        treat: Code(&[Passed, Denied]),
        text: "`no` is what is done; `yes` is refused: it is for shells",
    },
    Key {
        names: &["SendSIGKILL"],
        treat: Code(&[Approximated, Passed]),
        text: "what does not end in time is killed in any case; off is approximated by the longest stop timeout, a day",
    },
];
