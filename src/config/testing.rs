//! Helpers for the tests of settings.

use crate::config::settings::{Setting, TypedSetting};
use crate::config::{Config, Vars};
use crate::error::StartError;

/// Reads these variables as on a machine with four CPUs.
pub fn read(pairs: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let pairs = pairs.iter().map(|(k, v)| (k.into(), v.into()));
    Config::read(&Vars::from_variables(pairs), 4).map_err(|e| match e {
        StartError::Settings(problems) => problems,
        other => panic!("{other}"),
    })
}

/// Asserts that each of these values is refused, with a message that says what the setting accepts.
pub fn assert_refuses(setting: &Setting, values: &[&str]) {
    for value in values {
        let problems = read(&[(setting.name, value)]).unwrap_err();
        let expected = format!(
            "{} is {value:?}; accepted: {}",
            setting.name, setting.accepts
        );
        assert_eq!(problems, [expected]);
    }
}

/// Asserts that the setting accepts each word of a list such as "a, b or c" in `accepts`.
pub fn assert_accepts_words<T>(setting: &TypedSetting<T>) {
    let words = setting.accepts.split([',', ' ']);
    let words: Vec<_> = words.filter(|word| !["", "or"].contains(word)).collect();
    assert!(words.len() > 1, "{}", setting.accepts);
    for word in words {
        assert!(setting.parse(word).is_some(), "{word}");
    }
}
