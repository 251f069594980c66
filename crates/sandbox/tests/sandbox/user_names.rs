//! Programs that ask for their user hear a name.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sandbox::{Mount, UserName};

use crate::common::{launchers, run, shell};

#[test]
fn an_id_without_a_name_gets_one_and_one_that_has_it_keeps_it() {
    let etc = tempfile::tempdir().unwrap();
    let files = [("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("group", "root:x:0:\nmine:x:4243:\n")];
    for (name, text) in files {
        std::fs::write(etc.path().join(name), text).unwrap();
    }
    std::fs::set_permissions(etc.path(), Permissions::from_mode(0o755)).unwrap();
    let plan = |etc: &Path| {
        let mut plan = shell(
            "id; tail -n1 /etc/passwd; ls -A /; echo x >> /etc/passwd; rm -f /etc/passwd; wc -l < /etc/passwd",
        );
        let mut mounts = plan.mounts.clone();
        mounts.push(Mount::Bind {
            source: etc.to_str().unwrap().to_owned(),
            target: "/etc".to_owned(),
            writable: false,
            optional: false,
        });
        plan = plan.with_mounts(mounts);
        (plan.identity.uid, plan.identity.gid) = (4242, 4243);
        let name = UserName { name: "program".to_owned(), home: "/home/program".to_owned() };
        plan.user_name = Some(name);
        plan
    };
    for launcher in launchers() {
        let text = run(*launcher, &plan(etc.path()), &[]);
        assert!(text.contains("uid=4242(program) gid=4243(mine)"), "{text}");
        assert!(text.contains("program:x:4242:4243::/home/program:/bin/sh"), "{text}");
        assert!(!text.contains(".user-names"), "it is seen: {text}");
        assert!(text.lines().any(|line| line.trim() == "2"), "it was changed: {text}");
        // Where there are no such files, somebody wants it so.
        let empty = tempfile::tempdir().unwrap();
        std::fs::set_permissions(empty.path(), Permissions::from_mode(0o755)).unwrap();
        let text = run(*launcher, &plan(empty.path()), &[]);
        assert!(text.contains("uid=4242 gid=4243"), "{text}");
        assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
    }
    for (name, text) in files {
        assert_eq!(std::fs::read_to_string(etc.path().join(name)).unwrap(), text, "the host's was changed");
    }
}
