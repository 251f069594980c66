//! What a program in the sandbox can see and do, launched by root and by nobody.

use crate::common::{launchers, line, probe, run};

/// covers: PRC-17, SUP-02
#[test]
fn it_sees_nothing_of_the_host() {
    for launcher in launchers() {
        let plan = probe(
            "pid , uid , list / , list /proc/1/root , stat /etc/passwd , stat /root , stat /work , host_name , connect 127.0.0.1:22 , env",
        );
        let text = run(*launcher, &plan, &[]);
        assert_eq!(line(&text, "ok pid"), "1", "{text}");
        assert_eq!(line(&text, "ok uid"), "1000 1000");
        assert_eq!(line(&text, "ok list / "), "dev proc tmp");
        for path in ["/etc/passwd", "/root", "/work"] {
            line(&text, &format!("error 2 stat {path}"));
        }
        assert_eq!(line(&text, "ok host_name"), "bailiwick");
        assert!(text.contains("error ") && !text.contains("ok connect"), "{text}");
        assert_eq!(line(&text, "ok env"), "");
        line(&text, "exit 0");
    }
}
