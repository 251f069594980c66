//! Manifests that the import makes of Debian's units, read as any other manifest.
#![expect(clippy::unwrap_used, reason = "helpers of tests may stop the test")]

#[path = "../../../crates/import/tests/debian/mod.rs"]
mod debian;

use debian::packages;
use supervisor::manifest::parse;

/// From the folder of this package.
const CORPUS: &str = "../../crates/import/corpus";

#[test]
fn every_manifest_of_the_import_is_taken() {
    let mut count = 0;
    for (package, import) in packages() {
        for manifest in import.manifests {
            let text = manifest.to_toml();
            let loaded = parse(&package, &text);
            assert!(loaded.is_ok(), "{package}: {:?}\n{text}", loaded.err());
            count += 1;
        }
    }
    assert!(count > 40, "{count} manifests");
}

#[test]
fn the_three_that_are_to_serve_are_what_their_units_say() {
    let all = packages();
    let of = |package: &str, name: &str| {
        let (_, import) = all.iter().find(|(known, _)| known == package).unwrap();
        let made = import.manifests.iter().find(|one| one.name == name).unwrap();
        parse(name, &made.to_toml()).unwrap().manifest.program.unwrap()
    };
    let nginx = of("nginx-common", "nginx");
    assert_eq!(
        (nginx.image.as_str(), nginx.pid_file.as_deref()),
        ("/usr/sbin/nginx", Some("/run/nginx.pid"))
    );
    assert_eq!((nginx.before.len(), nginx.user.as_deref()), (1, Some("root")));
    let redis = of("redis-server", "redis-server");
    assert_eq!((redis.user.as_deref(), redis.privileges.len()), (Some("redis:redis"), 0));
    let postgresql = of("postgresql-common", "postgresql-15-main");
    assert_eq!(postgresql.args, ["--skip-systemctl-redirect", "15-main", "start"]);
    assert_eq!(postgresql.pid_file.as_deref(), Some("/run/postgresql/15-main.pid"));
}

/// What is published of containers is taken as it was made, and leads where the file says.
#[test]
fn published_ports_of_a_compose_file_are_taken() {
    let text = "services:\n  web:\n    image: /usr/bin/web\n    ports:\n      - 8080:80\n      - 127.0.0.1:4430-4431:443-444\n      \
                - target: 9000\n        published: 9000\n        host_ip: 127.0.0.1\n        name: fast-cgi\n";
    let import = import::compose("compose.yml", text).unwrap();
    let made = import.manifests.first().unwrap().to_toml();
    let manifest = parse("web", &made).unwrap().manifest;
    let of = |socket: &supervisor::manifest::SocketConfig| (socket.listen.to_string(), socket.publish);
    let expected = [
        ("tcp:[::]:8080", 80),
        ("tcp:127.0.0.1:4430", 443),
        ("tcp:127.0.0.1:4431", 444),
        ("tcp:127.0.0.1:9000", 9000),
    ];
    let expected = expected.map(|(listen, port)| (listen.to_owned(), Some(port)));
    assert_eq!(manifest.sockets.iter().map(of).collect::<Vec<_>>(), expected);
}
