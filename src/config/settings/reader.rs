//! Reads settings one by one and collects the problems, so that the program reports all wrong values at once.

use std::collections::BTreeSet;

use crate::config::Vars;
use crate::config::settings::{Circumstances, Setting, TypedSetting};

/// Reads settings from the given variables and nothing else.
pub struct Reader<'a> {
    vars: &'a Vars,
    /// The facts on which defaults depend. `Config::read` sets the modes once it has read them.
    pub circumstances: Circumstances,
    problems: Vec<String>,
    /// Names of the settings that were read, to check that none is forgotten.
    seen: BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    /// A reader that has read nothing yet.
    pub fn new(vars: &'a Vars, cpus: u32) -> Self {
        Self {
            vars,
            circumstances: Circumstances::new(cpus),
            problems: Vec::new(),
            seen: BTreeSet::new(),
        }
    }

    /// The value of a setting that has a default. For a wrong value, notes a problem and returns the default.
    ///
    /// # Panics
    /// When the setting has no default.
    pub fn value<T>(&mut self, setting: &'static TypedSetting<T>) -> T {
        let value = self.optional(setting);
        // A bug in the setting's entry. Any test finds it, because every start reads every setting.
        value.unwrap_or_else(|| panic!("{} has no default", setting.name))
    }

    /// The given value, otherwise the default, if the setting has one. Notes a problem for a wrong value.
    pub fn optional<T>(&mut self, setting: &'static TypedSetting<T>) -> Option<T> {
        self.seen.insert(setting.name);
        let given = self.vars.get(setting);
        let given = given.map(|(_, text)| setting.parse(text.trim()));
        if let Some(None) = given {
            self.refuse(setting);
        }
        given
            .flatten()
            .or_else(|| setting.parse_default(&self.circumstances))
    }

    /// Whether a value is given, right or wrong.
    pub fn is_given(&self, setting: &Setting) -> bool {
        self.vars.get(setting).is_some()
    }

    /// Notes that the given value is wrong, if one is given. Callers use it for values that are wrong only together
    /// with others.
    pub fn refuse(&mut self, setting: &Setting) {
        if let Some((origin, value)) = self.vars.get(setting) {
            let accepts = setting.accepts;
            self.note(format!("{origin} is {value:?}; accepted: {accepts}"));
        }
    }

    /// Notes a problem with this text.
    pub fn note(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// All problems, one line each, in the order in which they were found.
    pub fn finish(self) -> Vec<String> {
        let all = Setting::all().map(|setting| setting.name);
        debug_assert_eq!(self.seen, all.collect(), "every setting is read");
        self.problems
    }
}
