//! Finds environment variables that look like settings but have no effect: those of other servers, and misspelt ones.
//!
//! Messages have only names of variables, and values of none but one, because values may be secrets.

use std::path::Path;

use super::settings::Setting;

/// Prefixes of our settings. Other variables that begin with them are mistakes.
const OURS: [&str; 3] = ["SAGEMAKER_TFS_", "SAGEMAKER_GUNICORN_", "SAGEMAKER_NGINX_"];
/// Variables of other servers, and what to use here. A name that ends with `*` stands for all that begin so.
const OTHERS: &[(&str, &str)] = &[
    (
        "SAGEMAKER_MODEL_SERVER_WORKERS",
        "set SAGEMAKER_GUNICORN_WORKERS for Python processes, or SAGEMAKER_TFS_INSTANCE_COUNT for TensorFlow Serving \
         processes",
    ),
    (
        "SAGEMAKER_MODEL_SERVER_TIMEOUT",
        "set SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS for requests, or SAGEMAKER_GUNICORN_TIMEOUT_SECONDS for calls \
         of a handler",
    ),
    ("SAGEMAKER_MODEL_SERVER_VMARGS", "there is no Java here"),
    ("SAGEMAKER_TS_*", "it is for TorchServe; see SETTINGS.md"),
    (
        "SAGEMAKER_REQUIREMENTS",
        "put code/requirements.txt into the archive",
    ),
    (
        "MODEL_SERVER_WORKERS",
        "it is for another server; set SAGEMAKER_GUNICORN_WORKERS",
    ),
    (
        "MODEL_SERVER_TIMEOUT",
        "it is for another server; set SAGEMAKER_GUNICORN_TIMEOUT_SECONDS",
    ),
    (
        "MODEL_BASE_PATH",
        "it is for the image tensorflow/serving; set SAGEMAKER_TFS_MODEL_DIR",
    ),
    (
        "MODEL_NAME",
        "it is for the image tensorflow/serving; models are named after their folders, and \
         SAGEMAKER_TFS_DEFAULT_MODEL_NAME chooses one",
    ),
];
/// What the image tensorflow/serving sets itself, and images made from it inherit.
const OF_SERVINGS_IMAGE: [(&str, &str); 2] =
    [("MODEL_NAME", "model"), ("MODEL_BASE_PATH", "/models")];
/// Where the SDK says that it put the script.
const SUBMIT_DIRECTORY: &str = "SAGEMAKER_SUBMIT_DIRECTORY";
/// Where it says so of archives that hold their script, also for multi-model endpoints.
const SDKS_CODE: &str = "/opt/ml/model/code";
/// The most letters by which a misspelt name differs from the right one.
const MAX_DISTANCE: usize = 3;
/// The longest name that is compared, because comparing takes time.
const MAX_COMPARED: usize = 80;

/// Sentences about variables that have no effect, sorted.
pub fn remarks<'a>(
    environment: impl Iterator<Item = (&'a String, &'a String)>,
    model_dir: &Path,
) -> Vec<String> {
    let given = environment.filter(|(_, value)| !value.is_empty());
    let mut remarks: Vec<_> = given
        .filter_map(|(name, value)| remark(name, value, model_dir))
        .collect();
    remarks.sort();
    remarks
}

fn remark(name: &str, value: &str, model_dir: &Path) -> Option<String> {
    if Setting::all().any(|setting| setting.name == name)
        || OF_SERVINGS_IMAGE.contains(&(name, value))
    {
        return None;
    }
    if name == SUBMIT_DIRECTORY {
        let code = model_dir.join("code");
        let path = Path::new(value.strip_prefix("file://").unwrap_or(value));
        return (path != code && path != Path::new(SDKS_CODE)).then(|| {
            let code = code.display();
            format!("{name} is {value:?} and has no effect: the script has to be in {code}")
        });
    }
    let is_meant = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    if let Some((_, advice)) = OTHERS.iter().find(|(pattern, _)| is_meant(pattern)) {
        return Some(format!("{name} has no effect: {advice}"));
    }
    if !OURS.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    let name = &name.chars().take(MAX_COMPARED).collect::<String>();
    let known = Setting::all().map(|setting| (distance(name, setting.name), setting.name));
    Some(match known.min() {
        Some((distance, similar)) if distance <= MAX_DISTANCE => {
            format!("{name} has no effect, because there is no such setting: is {similar} meant?")
        }
        _ => format!("{name} has no effect, because there is no such setting; see SETTINGS.md"),
    })
}

/// How many letters must be added, removed or replaced to turn one name into the other (Levenshtein's distance).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(name: &str, value: &str) -> Option<String> {
        remark(name, value, Path::new("/opt/ml/model"))
    }

    #[test]
    fn names_the_setting_to_use() {
        for (name, value, named) in [
            (
                "SAGEMAKER_MODEL_SERVER_WORKERS",
                "2",
                "SAGEMAKER_GUNICORN_WORKERS",
            ),
            ("SAGEMAKER_TS_BATCH_SIZE", "2", "TorchServe"),
            ("MODEL_SERVER_TIMEOUT", "9", "another server"),
            ("MODEL_NAME", "m", "SAGEMAKER_TFS_DEFAULT_MODEL_NAME"),
            (
                "SAGEMAKER_SUBMIT_DIRECTORY",
                "s3://b/sourcedir.tar.gz",
                "/opt/ml/model/code",
            ),
            (
                "SAGEMAKER_TFS_INSTANCES_COUNT",
                "2",
                "is SAGEMAKER_TFS_INSTANCE_COUNT meant?",
            ),
            (
                "SAGEMAKER_GUNICORN_WORKER",
                "2",
                "is SAGEMAKER_GUNICORN_WORKERS meant?",
            ),
            ("SAGEMAKER_TFS_NO_SUCH_THING", "2", "no such setting; see"),
        ] {
            let remark = about(name, value).expect(name);
            assert!(remark.starts_with(name), "{remark}");
            assert!(remark.contains(named), "{remark}");
        }
    }

    #[test]
    fn says_nothing_about_settings_and_what_is_not_ours() {
        for (name, value) in [
            ("SAGEMAKER_SUBMIT_DIRECTORY", "/opt/ml/model/code"),
            ("SAGEMAKER_SUBMIT_DIRECTORY", "file:///opt/ml/model/code/"),
            ("SAGEMAKER_CONTAINER_LOG_LEVEL", "20"),
            ("SAGEMAKER_REGION", "eu-west-1"),
            ("TF_CPP_MIN_LOG_LEVEL", "1"),
            ("MODEL_NAMES", "x"),
            ("MODEL_NAME", "model"),
            ("MODEL_BASE_PATH", "/models"),
            ("MODEL_SERVER_PYTHON", "python3"),
            ("SAGEMAKER_TFS_WAIT_TIME_SECONDS", "x"),
        ] {
            assert_eq!(about(name, value), None, "{name}");
        }
        let unset = (&"SAGEMAKER_TFS_X".to_owned(), &String::new());
        assert!(remarks([unset].into_iter(), Path::new("/")).is_empty());
    }
}
