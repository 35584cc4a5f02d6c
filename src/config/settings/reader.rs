//! Reads settings one by one and collects what is wrong, so that all wrong values are reported at once.

use std::collections::BTreeSet;

use crate::config::Vars;
use crate::config::settings::{Circumstances, Setting, TypedSetting};

/// Reads settings from the given variables and from nothing else.
pub struct Reader<'a> {
    vars: &'a Vars,
    /// What defaults depend on. The modes are set once they have been read.
    pub circumstances: Circumstances,
    problems: Vec<String>,
    /// Names of the settings read, to check that none is forgotten.
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

    /// The value of a setting that has a default. Notes a wrong value and returns the default then.
    ///
    /// # Panics
    /// When the setting has no default.
    pub fn value<T>(&mut self, setting: &'static TypedSetting<T>) -> T {
        let value = self.optional(setting);
        // A mistake in the entry. Any test finds it, because every start reads every setting.
        value.unwrap_or_else(|| panic!("{} has no default", setting.name))
    }

    /// The value, or else the default if there is one. Notes a wrong value.
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

    /// Notes that the given value, if any, is wrong. For values that are wrong only together with others.
    pub fn refuse(&mut self, setting: &Setting) {
        if let Some((origin, value)) = self.vars.get(setting) {
            let accepts = setting.accepts;
            self.note(format!("{origin} is {value:?}; accepted: {accepts}"));
        }
    }

    /// Notes any other problem.
    pub fn note(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// All problems, one line each.
    pub fn finish(self) -> Vec<String> {
        let all = Setting::all().map(|setting| setting.name);
        debug_assert_eq!(self.seen, all.collect(), "every setting is read");
        self.problems
    }
}
