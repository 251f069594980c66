//! This host, as an import asks about it.

use std::path::Path;

use import::{Host, limits::FILE_BYTES_MAX};

use crate::command::checkpoint::read_text;

const PASSWD: &str = "/etc/passwd";
/// Bytes of it that are read.
const PASSWD_BYTES_MAX: usize = 4 * 1024 * 1024;

pub struct Real;

impl Host for Real {
    fn exists(&self, path: &str) -> bool {
        Path::new(path).exists()
    }

    fn text(&self, path: &str) -> Option<Result<String, String>> {
        let path = Path::new(path);
        // A pipe or a device would be waited for.
        match std::fs::metadata(path) {
            Ok(found) if found.is_file() => {
                Some(read_text(path, FILE_BYTES_MAX).map_err(|error| format!("{error:#}")))
            }
            Ok(_) => Some(Err("it is no file".to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(error.to_string())),
        }
    }

    fn home(&self, user: &str) -> Option<String> {
        let text = read_text(Path::new(PASSWD), PASSWD_BYTES_MAX).ok()?;
        home_in(&text, user)
    }

    fn host_name(&self) -> Option<String> {
        rustix::system::uname().nodename().to_str().ok().map(str::to_owned)
    }
}

/// By name or number.
fn home_in(passwd: &str, user: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?;
        (name == user || uid == user).then(|| fields.nth(2).map(str::to_owned)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_found_by_name_or_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nredis:x:107:114::/var/lib/redis:/usr/sbin/nologin\nbroken\n";
        assert_eq!(home_in(passwd, "redis").as_deref(), Some("/var/lib/redis"));
        assert_eq!(home_in(passwd, "0").as_deref(), Some("/root"));
        assert_eq!(home_in(passwd, "nobody"), None);
    }
}
