//! Archives as tools write them, and as nobody should.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use sha2::{Digest, Sha256};

use super::*;
use chain::payload::image::ImageForm;

fn hex(bytes: &[u8]) -> String {
    TreeId(Sha256::digest(bytes).into()).to_hex()
}

/// One name of a layer, whatever it says: no builder that makes names better.
struct Name<'a> {
    path: &'a str,
    kind: tar::EntryType,
    mode: u32,
    data: &'a [u8],
    link: &'a str,
}

fn file<'a>(path: &'a str, data: &'a str) -> Name<'a> {
    Name { path, kind: tar::EntryType::Regular, mode: 0o644, data: data.as_bytes(), link: "" }
}

fn other<'a>(path: &'a str, kind: tar::EntryType, link: &'a str) -> Name<'a> {
    Name { path, kind, mode: 0o755, data: b"", link }
}

fn folder(path: &str) -> Name<'_> {
    other(path, tar::EntryType::Directory, "")
}

fn link<'a>(path: &'a str, target: &'a str) -> Name<'a> {
    other(path, tar::EntryType::Symlink, target)
}

fn layer(names: &[Name<'_>]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for name in names {
        let mut header = tar::Header::new_gnu();
        let raw = header.as_old_mut();
        raw.name[..name.path.len()].copy_from_slice(name.path.as_bytes());
        raw.linkname[..name.link.len()].copy_from_slice(name.link.as_bytes());
        header.set_entry_type(name.kind);
        header.set_mode(name.mode);
        header.set_mtime(1_000_000_000);
        header.set_size(name.data.len() as u64);
        header.set_cksum();
        out.append(&header, name.data).unwrap();
    }
    out.into_inner().unwrap()
}

fn packed(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        out.append_data(&mut header, path, bytes.as_slice()).unwrap();
    }
    out.into_inner().unwrap()
}

const CONFIG: &str =
    r#""Env":["PATH=/bin"],"Entrypoint":["/app"],"Cmd":["a"],"WorkingDir":"/srv","User":"7:8""#;

fn configuration(layers: &[Vec<u8>], inner: &str) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| format!("\"sha256:{}\"", hex(layer))).collect();
    let machine = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    format!(
        r#"{{"os":"linux","architecture":"{machine}","config":{{{inner}}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    )
    .into_bytes()
}

/// A layout of one image, its layers as they are and as they are packed.
fn layout(layers: &[Vec<u8>], pack: impl Fn(&[u8]) -> Vec<u8>) -> Vec<(String, Vec<u8>)> {
    let blob = |bytes: &[u8]| (format!("blobs/sha256/{}", hex(bytes)), bytes.to_vec());
    let describe = |bytes: &[u8], kind: &str| {
        format!(r#"{{"mediaType":"{kind}","digest":"sha256:{}","size":{}}}"#, hex(bytes), bytes.len())
    };
    let config = configuration(layers, CONFIG);
    let stored: Vec<Vec<u8>> = layers.iter().map(|layer| pack(layer)).collect();
    let named: Vec<String> = stored.iter().map(|layer| describe(layer, "layer")).collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
        describe(&config, "config"),
        named.join(",")
    );
    let index =
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, describe(manifest.as_bytes(), "manifest"));
    let mut files = vec![
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index.into_bytes()),
        blob(manifest.as_bytes()),
        blob(&config),
    ];
    files.extend(stored.iter().map(|layer| blob(layer)));
    files.dedup();
    files
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        // In memory where it can be: each unpacking ends with a sync of the whole file system.
        Self(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    fn unpack(&self, archive: &[u8], tag: &str) -> Result<(TreeId, Content), String> {
        let folder = open_folder(CWD, self.0.path().to_str().unwrap()).unwrap();
        unpack(archive, tag, &folder).map_err(|error| error.to_string())
    }

    fn unpack_at_most(&self, archive: &[u8], entries_max: u64) -> Result<(TreeId, Content), String> {
        let folder = open_folder(CWD, self.0.path().to_str().unwrap()).unwrap();
        unpack_at_most(archive, "", &folder, entries_max).map_err(|error| error.to_string())
    }

    fn root(&self) -> std::path::PathBuf {
        self.0.path().join(ROOT)
    }
}

fn of_layers(layers: &[Vec<u8>]) -> (Place, Result<(TreeId, Content), String>) {
    let place = Place::new();
    let unpacked = place.unpack(&packed(&layout(layers, <[u8]>::to_vec)), "");
    (place, unpacked)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn layers_lie_over_each_other_and_take_away() {
    let first = layer(&[
        folder("./"),
        folder("bin/"),
        Name { mode: 0o4755, ..file("bin/su", "s") },
        folder("old"),
        file("old/a", "1"),
        file("old/deep/b", "2"),
        file("gone", "3"),
        link("lib", "usr/lib"),
        folder("usr/lib"),
        other("dev/sda", tar::EntryType::Block, ""),
        folder("tmp"),
    ]);
    let second = layer(&[
        // What a layer brings stays, also where its mark comes later.
        file("old/new", "4"),
        file("old/.wh..wh..opq", ""),
        file(".wh.gone", ""),
        file("lib/c", "5"),
        other("usr/lib/d", tar::EntryType::Link, "lib/c"),
        file("app", "#!/bin/su"),
    ]);
    let (place, unpacked) = of_layers(&[first, second]);
    let (id, content) = unpacked.unwrap();
    let root = place.root();
    assert!(!root.join("old/a").exists() && !root.join("old/deep").exists() && !root.join("gone").exists());
    assert_eq!(text(&root.join("old/new")), "4");
    assert_eq!((text(&root.join("usr/lib/c")), text(&root.join("usr/lib/d"))), ("5".into(), "5".into()));
    let su = fs::metadata(root.join("bin/su")).unwrap();
    assert_eq!(su.permissions().mode() & 0o7777, 0o755, "nothing runs as its owner");
    assert_eq!((content.set_id, content.left_out, content.layers), (1, 1, 2));
    assert!(!place.0.path().join(BLOBS).exists());
    let top = |name: &str, kind| Top { name: name.to_owned(), kind };
    assert_eq!(
        content.top,
        [
            top("app", Kind::File),
            top("bin", Kind::Folder),
            top("lib", Kind::Link("usr/lib".to_owned())),
            top("old", Kind::Folder),
            top("usr", Kind::Folder),
        ],
        "without what the sandbox has of its own"
    );
    assert_eq!((content.entrypoint, content.cmd), (vec!["/app".to_owned()], vec!["a".to_owned()]));
    assert_eq!((content.uid, content.gid, content.working_dir.as_str()), (7, 8, "/srv"));
    assert_ne!(id, TreeId([0; 32]));
}

#[test]
fn no_name_of_a_layer_leads_out() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "host's").unwrap();
    let to = outside.path().to_str().unwrap().to_owned();
    let up = "../".repeat(20) + to.trim_start_matches('/');
    for target in [&to, &up] {
        // Followed as the image means it: below its own top, where nothing of this kind is.
        let (place, unpacked) =
            of_layers(&[layer(&[link("out", target), file("out/made", "x"), link("file", target)])]);
        assert!(unpacked.is_err() || place.root().join("out").is_dir());
        assert!(!outside.path().join("made").exists());
        let (_, linked) =
            of_layers(&[layer(&[link("out", target), other("h", tar::EntryType::Link, "out/secret")])]);
        assert!(linked.unwrap_err().contains("not there"));
        let (_, gone) = of_layers(&[layer(&[link("out", target)]), layer(&[file("out/.wh.secret", "")])]);
        assert!(gone.is_ok() && outside.path().join("secret").exists());
        let (_, emptied) =
            of_layers(&[layer(&[link("out", target)]), layer(&[file("out/.wh..wh..opq", "")])]);
        assert!(emptied.is_ok() && outside.path().join("secret").exists());
    }
    // Written through a link that stands where the file is to be: the link goes.
    let secret = format!("{to}/secret");
    let (place, unpacked) = of_layers(&[layer(&[link("f", &secret), file("f", "mine")])]);
    unpacked.unwrap();
    assert_eq!(text(&place.root().join("f")), "mine");
    assert_eq!(text(&outside.path().join("secret")), "host's");
}

#[test]
fn a_hostile_layer_is_refused_by_name() {
    let kind = tar::EntryType::new;
    let deep = "d/".repeat(45) + "x";
    for (what, names) in [
        ("leads out", vec![file("../x", "")]),
        ("leads out", vec![file("a/../../x", "")]),
        ("not a name below", vec![file("/etc/x", "")]),
        ("leads out", vec![folder("a"), link("l", "a"), other("h", kind(b'1'), "../../etc/passwd")]),
        ("not a name below", vec![other("h", kind(b'1'), "/etc/passwd")]),
        ("no file", vec![folder("a"), other("h", kind(b'1'), "a")]),
        ("not there", vec![other("h", kind(b'1'), "nothing")]),
        ("sparse file", vec![other("s", kind(b'S'), "")]),
        ("no layer has", vec![other("s", kind(b'V'), "")]),
        ("takes nothing", vec![file("a/.wh.", "")]),
        ("takes nothing", vec![file(".wh...", "")]),
        ("points to nothing", vec![link("l", "")]),
        ("a link without", vec![other("l", kind(b'1'), "")]),
        ("folders", vec![link("l", "l"), file("l/x", "")]),
        ("deep", vec![file(&deep, "")]),
    ] {
        let (_, unpacked) = of_layers(&[layer(&names)]);
        match what {
            // A loop is the kernel's to refuse; what is no whole header, the archive's.
            "deep" => assert!(unpacked.is_ok(), "{unpacked:?}"),
            "sparse file" | "folders" | "a link without" | "points to nothing" => assert!(unpacked.is_err()),
            _ => {
                let Err(said) = unpacked else { panic!("{what} was taken") };
                assert!(said.contains(what), "{what}: {said}");
            }
        }
    }
    assert!(layer::parts(&b"d/".repeat(DEPTH_MAX)).is_ok());
    assert!(layer::parts(&b"d/".repeat(DEPTH_MAX + 1)).is_err());
    assert!(layer::parts(&[b'x'; PATH_BYTES_MAX]).is_ok());
    assert!(layer::parts(&[b'x'; PATH_BYTES_MAX + 1]).is_err());
}

#[test]
fn what_is_not_what_its_digest_says_is_refused_before_a_file_is_made() {
    let one = layer(&[file("app", "x")]);
    let good = layout(std::slice::from_ref(&one), <[u8]>::to_vec);
    for number in 0..good.len() {
        let mut files = good.clone();
        let (name, bytes) = &mut files[number];
        if !name.starts_with("blobs") {
            continue;
        }
        // A letter of a name or a word of the JSON.
        let place = bytes.iter().position(|byte| *byte == b'a').unwrap();
        bytes[place] = b'A';
        let named = name.clone();
        let place = Place::new();
        let said = place.unpack(&packed(&files), "").unwrap_err();
        assert!(said.contains("digest"), "{named}: {said}");
        assert_eq!(fs::read_dir(place.root()).unwrap().count(), 0);
    }
    // The blob is what its name says, but not what the configuration says.
    let other = layer(&[file("app", "y")]);
    let said = Place::new().unpack(&packed(&layout(&[one], |_| other.clone())), "").unwrap_err();
    assert!(said.contains("unpacks to"), "{said}");
}

#[test]
fn layers_and_archives_are_taken_with_and_without_compression() {
    let gzip = |bytes: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        // Two frames, as parallel compressors write them.
        let (one, two) = bytes.split_at(bytes.len() / 2);
        [ruzstd::encoding::compress_to_vec(one, level), ruzstd::encoding::compress_to_vec(two, level)]
            .concat()
    };
    let layers = [layer(&[file("app", "x")]), layer(&[file("b", "y")])];
    for pack in [&gzip as &dyn Fn(&[u8]) -> Vec<u8>, &zstd, &<[u8]>::to_vec] {
        let archive = packed(&layout(&layers, pack));
        for whole in [archive.clone(), pack(&archive)] {
            let place = Place::new();
            place.unpack(&whole, "").unwrap();
            assert_eq!(
                (text(&place.root().join("app")), text(&place.root().join("b"))),
                ("x".into(), "y".into())
            );
        }
    }
}

#[test]
fn what_docker_saves_is_an_image_too() {
    let one = layer(&[file("app", "x")]);
    let config = configuration(std::slice::from_ref(&one), CONFIG);
    let name = format!("{}.json", hex(&config));
    let manifest = format!(
        r#"[{{"Config":"{name}","RepoTags":["a/b:1"],"Layers":["l/layer.tar"]}},
            {{"Config":"{name}","RepoTags":["a/b:2"],"Layers":["l/layer.tar"]}}]"#
    );
    let files = [
        ("manifest.json".to_owned(), manifest.into_bytes()),
        (name, config.clone()),
        ("l/layer.tar".to_owned(), one),
    ];
    let place = Place::new();
    let (id, _) = place.unpack(&packed(&files), "2").unwrap();
    assert_eq!(id.to_hex(), hex(&config));
    assert_eq!(text(&place.root().join("app")), "x");
    let said = Place::new().unpack(&packed(&files), "").unwrap_err();
    assert!(said.contains("a/b:1") && said.contains("a/b:2"), "{said}");
    let mut changed = files.clone();
    changed[2].1 = layer(&[file("app", "y")]);
    assert!(Place::new().unpack(&packed(&changed), "a/b:1").unwrap_err().contains("digest"));
}

#[test]
fn an_archive_that_is_none_or_is_cut_says_so() {
    for bytes in [b"".as_slice(), b"hello", &[0; 1024], &[0x1f, 0x8b, 0, 0, 0], &[0x28, 0xb5, 0x2f, 0xfd, 0]]
    {
        let said = Place::new().unpack(bytes, "").unwrap_err();
        assert!(!said.is_empty());
    }
    let whole = packed(&layout(&[layer(&[file("app", "x")])], <[u8]>::to_vec));
    for cut in [600, 1100, whole.len() / 2] {
        assert!(Place::new().unpack(&whole[..cut], "").is_err(), "cut at {cut}");
    }
    let twice = packed(&[("a".to_owned(), vec![1]), ("./a".to_owned(), vec![2])]);
    assert!(Place::new().unpack(&twice, "").unwrap_err().contains("twice"));
}

#[test]
fn limits_are_checked_while_it_is_read() {
    let at = |bytes: u64, max: u64| {
        io::copy(&mut read::Bounded::new(io::repeat(0).take(bytes), max, "it"), &mut io::sink()).is_ok()
    };
    assert!(at(1000, 1000) && !at(1001, 1000) && at(0, 0) && !at(1, 0));
    let many = |count| {
        let files: Vec<(String, Vec<u8>)> = (0..count).map(|n| (format!("f{n}"), Vec::new())).collect();
        Place::new().unpack(&packed(&files), "").unwrap_err()
    };
    assert!(many(ARCHIVE_ENTRIES_MAX).contains("index.json"));
    assert!(many(ARCHIVE_ENTRIES_MAX + 1).contains("more than"));
    let json = |bytes: u64| {
        let spaces = usize::try_from(bytes).unwrap();
        Place::new().unpack(&packed(&[("index.json".to_owned(), vec![b' '; spaces])]), "").unwrap_err()
    };
    assert!(!json(JSON_BYTES_MAX).contains("more than"));
    assert!(json(JSON_BYTES_MAX + 1).contains("more than"));
    let layers = |count| {
        let one = layer(&[file("a", "")]);
        of_layers(&vec![one; count]).1
    };
    assert!(layers(IMAGE_LAYERS_MAX).is_ok());
    assert!(layers(IMAGE_LAYERS_MAX + 1).unwrap_err().contains("layers"));
}

/// Folders that have no entry, and entries that make nothing, are work as others are.
#[test]
fn what_an_archive_costs_counts_towards_its_limit() {
    let folders = [file("a/b/c/f", "x")];
    let nothing = [folder("./"), file(".wh.gone", ""), other("s", tar::EntryType::Fifo, ""), file("f", "x")];
    for names in [&folders[..], &nothing] {
        let archive = packed(&layout(&[layer(names)], <[u8]>::to_vec));
        let within = |max| Place::new().unpack_at_most(&archive, max);
        within(4).unwrap();
        assert!(within(3).unwrap_err().contains("more than 3 entries"));
    }
}

/// One image has one id, whichever form it came in; what the other form would have called it is told beside.
#[test]
fn the_id_of_an_image_is_that_of_its_configuration_in_both_forms() {
    let one = layer(&[file("app", "x")]);
    let config = configuration(std::slice::from_ref(&one), CONFIG);
    let as_layout = layout(std::slice::from_ref(&one), <[u8]>::to_vec);
    let manifest = TreeId::from_hex(as_layout[2].0.trim_start_matches("blobs/sha256/")).unwrap();
    let (id, of_layout) = Place::new().unpack(&packed(&as_layout), "").unwrap();
    let name = format!("{}.json", hex(&config));
    let saved = format!(r#"[{{"Config":"{name}","Layers":["l.tar"]}}]"#).into_bytes();
    let files = [("manifest.json".to_owned(), saved), (name, config.clone()), ("l.tar".to_owned(), one)];
    let (same, of_docker) = Place::new().unpack(&packed(&files), "").unwrap();
    assert_eq!((id.to_hex(), same), (hex(&config), id));
    assert_eq!((of_layout.form, of_layout.manifest), (ImageForm::OciLayout, Some(manifest)));
    assert_eq!((of_docker.form, of_docker.manifest), (ImageForm::DockerArchive, None));
}
