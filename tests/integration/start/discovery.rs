//! How the model directory becomes the config file for TensorFlow Serving.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::{INSTANCES, Setup};

#[test]
fn folders_become_models_and_versions() {
    for (folders, expected) in [
        (
            &["half_plus_three/00000123"][..],
            &[("half_plus_three", "half_plus_three", &[123][..])][..],
        ),
        // The model directory itself is the model.
        (&["12345"], &[("model", "", &[12345])]),
        // The layout of older SDKs.
        (&["export/Servo/1"], &[("Servo", "export/Servo", &[1])]),
        (&["m/1", "m/2", "m/0010"], &[("m", "m", &[1, 2, 10])]),
        (
            &["b/1", "a/x/2", "C/3", "deep/er/d/4"],
            &[
                ("C", "C", &[3]),
                ("b", "b", &[1]),
                ("d", "deep/er/d", &[4]),
                ("x", "a/x", &[2]),
            ],
        ),
        (&["m/0"], &[("m", "m", &[0])]),
        (
            &["m.x_y-z/9223372036854775807"],
            &[("m.x_y-z", "m.x_y-z", &[i64::MAX as u64])],
        ),
        // Hidden folders and folders whose names are not version numbers are ignored.
        (
            &[
                "m/1",
                ".cache/m/1",
                "m/.ipynb_checkpoints/2",
                "m/2-draft",
                "n/v1",
                "m/.3",
            ],
            &[("m", "m", &[1])],
        ),
    ] {
        let setup = Setup::new().models(folders);
        let directory = setup.path("model").canonicalize().unwrap();
        let server = setup.launch();
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, path, versions)| {
                let path = directory
                    .join(path)
                    .components()
                    .collect::<std::path::PathBuf>();
                (
                    (*name).to_owned(),
                    path.display().to_string(),
                    versions.to_vec(),
                )
            })
            .collect();
        assert_eq!(server.wait_for_start(0).models(), expected, "{folders:?}");
    }
}

#[test]
fn a_lone_saved_model_is_served_as_version_1() {
    for (folder, name) in [
        ("", "model"),
        ("my_model", "my_model"),
        ("export/my-model.x", "my-model.x"),
    ] {
        let setup = Setup::new().models(&[folder]);
        let real = setup.path("model").join(folder).canonicalize();
        // The test harness creates the folder only when the server starts.
        let real = real.unwrap_or_else(|_| setup.path("model").join(folder));
        let server = setup.start();
        let models = server.wait_for_start(0).models();
        assert_eq!(models.len(), 1, "{folder:?}");
        let (found, base, versions) = &models[0];
        assert_eq!((found.as_str(), versions.as_slice()), (name, &[1][..]));
        let version = Path::new(base).join("1").canonicalize().unwrap();
        assert_eq!(version, real.canonicalize().unwrap(), "{folder:?}");
        assert!(version.join("saved_model.pb").is_file());
        server.assert_serves();
        assert_eq!(
            server.last_request().path,
            format!("/v1/models/{name}:predict")
        );
    }
}

#[test]
fn symbolic_links_in_the_model_directory_are_followed() {
    let setup = Setup::new()
        .models(&[])
        .file("elsewhere/m/5/saved_model.pb", "");
    symlink(setup.path("elsewhere"), setup.path("model/linked")).unwrap();
    // A link that leads back up is ignored.
    symlink(setup.path("elsewhere"), setup.path("elsewhere/m/back")).unwrap();
    let server = setup.start();
    let models = server.wait_for_start(0).models();
    assert_eq!(models.len(), 1, "{models:?}");
    assert_eq!(
        (models[0].0.as_str(), models[0].2.as_slice()),
        ("m", &[5][..])
    );
}

#[test]
fn the_default_model_is_the_configured_one_or_the_first_by_name() {
    for (chosen, path) in [
        (None, "/v1/models/alpha:predict"),
        (Some("beta"), "/v1/models/beta:predict"),
        (Some("alpha"), "/v1/models/alpha:predict"),
    ] {
        let setup = Setup::new().models(&["z/beta/1", "alpha/1", "gamma/1"]);
        let setup = match chosen {
            Some(name) => setup.var("SAGEMAKER_TFS_DEFAULT_MODEL_NAME", name),
            None => setup,
        };
        let server = setup.start();
        assert_eq!(server.invoke(INSTANCES).status, 200);
        assert_eq!(server.last_request().path, path, "{chosen:?}");
    }
}

#[test]
fn a_path_with_special_characters_is_escaped_for_tensorflow_serving() {
    let server = Setup::new().models(&["it's \"odd\" \u{e9}/m/1"]).start();
    let config = server.wait_for_start(0).model_config;
    assert!(config.contains(r#"/it\'s "odd" \303\251/m'"#), "{config}");
}

#[test]
fn a_path_that_tensorflow_takes_for_a_pattern_is_replaced_by_a_plain_one() {
    let setup = Setup::new().models(&["a[*]\\{b}?/m/1"]);
    let model = setup.path("model/a[*]\\{b}?/m");
    let server = setup.start();
    let (name, base, versions) = server.wait_for_start(0).models().remove(0);
    assert_eq!((name.as_str(), versions), ("m", vec![1]));
    assert!(!base.contains(['[', '*', '\\', '?', '{']), "{base}");
    assert_eq!(std::fs::read_link(base).unwrap(), model);
    server.assert_serves();
}
