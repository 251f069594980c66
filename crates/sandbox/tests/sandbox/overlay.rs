//! A folder that the program may change without changing it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use sandbox::Mount;

use crate::common::{As, NOBODY, is_root, launchers, line, run, shell};

#[test]
fn what_is_written_over_a_folder_lies_in_its_layer_and_the_folder_stays() {
    for launcher in launchers() {
        let top = tempfile::tempdir().unwrap();
        // A name with what separates options of a mount.
        let (folder, layer) = (top.path().join("a:b,c"), top.path().join("layer"));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(top.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        for (name, content) in [("kept", "old"), ("changed", "old"), ("removed", "old")] {
            fs::write(folder.join(name), content).unwrap();
        }
        if *launcher == As::Nobody && is_root() {
            for path in [folder.clone(), folder.join("changed")] {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let script = "cd /work && echo new > changed && rm removed && mkdir made && echo x > made/y && \
                      cat kept changed made/y && ls && stat -c %a .";
        let plan = shell(script);
        let mut mounts = plan.mounts.clone();
        mounts.push(Mount::Overlay {
            source: folder.to_str().unwrap().to_owned(),
            target: "/work".to_owned(),
            layer: layer.to_str().unwrap().to_owned(),
        });
        let text = run(*launcher, &plan.with_mounts(mounts), &[]);
        line(&text, "exit 0");
        assert!(text.contains("oldnew\nx\nchanged\nkept\nmade\n755\n"), "{text}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3, "nothing was made or removed");
        assert_eq!(fs::read_to_string(folder.join("changed")).unwrap(), "old");
        let upper = layer.join(sandbox::OVERLAY_UPPER);
        assert_eq!(fs::read_to_string(upper.join("changed")).unwrap(), "new\n");
        assert_eq!(fs::read_to_string(upper.join("made/y")).unwrap(), "x\n");
        let whiteout = fs::symlink_metadata(upper.join("removed")).unwrap();
        assert_eq!((whiteout.mode() & libc::S_IFMT, whiteout.rdev()), (libc::S_IFCHR, 0));
        assert!(!upper.join("kept").exists());
    }
}

#[test]
fn a_layer_that_cannot_be_made_is_named() {
    let plan = shell("true");
    let mut mounts = plan.mounts.clone();
    mounts.push(Mount::Overlay {
        source: "/usr".to_owned(),
        target: "/work".to_owned(),
        layer: "/no/such/folder/layer".to_owned(),
    });
    let text = run(launchers()[0], &plan.with_mounts(mounts), &[]);
    line(&text, &format!("failed open mount source: {}:", libc::ENOENT));
}
