//! The names under which TensorFlow Serving (TFS) serves models.
//!
//! A model is named after its folder, whatever the name. TFS's REST API takes names from paths: versions up to 2.2 as
//! they are there, without decoding `%20`, later versions decoded. So a name that would need an escape gets another one
//! towards TFS, which works with every version.

use std::collections::BTreeSet;

/// The longest name towards TFS, bytes. It becomes the name of a link in a folder for temporary files, which may have 255.
pub const MAX_NAME: usize = 200;

/// Names that are taken.
#[derive(Debug)]
pub struct Names(BTreeSet<String>);

impl Names {
    /// For the models in folders of these names.
    pub fn new<'a>(folders: impl Iterator<Item = &'a str>) -> Self {
        Self(folders.map(str::to_owned).collect())
    }

    /// The name towards TFS for the model in this folder: the folder's own, or a similar one that no other model has.
    pub fn for_tfs(&mut self, folder: &str) -> String {
        let similar = folder.chars().map(|c| if is_safe(c) { c } else { '_' });
        // One byte each.
        let similar: String = similar.take(MAX_NAME).collect();
        if similar == folder {
            return similar;
        }
        let mut name = similar.clone();
        let mut number = 2;
        while !self.0.insert(name.clone()) {
            name = format!("{similar}_{number}");
            number += 1;
        }
        name
    }
}

/// Whether a character stands for itself in a path's segment, by RFC 3986 and by TFS, which splits at `:` and `/`.
fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '+' | '=' | '@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_needs_no_escape_and_makes_other_names_unique() {
        let folders = ["_export", "bert+head", "a b", "a_b", "a:b", "\u{e9}", "50%"];
        let mut names = Names::new(folders.into_iter());
        let given = folders.map(|folder| names.for_tfs(folder));
        let expected = ["_export", "bert+head", "a_b_2", "a_b", "a_b_3", "_", "50_"];
        assert_eq!(given, expected);
    }

    #[test]
    fn long_names_are_cut_and_stay_different() {
        let folders = ["x", "y", "\u{e9}"].map(|end| format!("{}{end}", "a".repeat(MAX_NAME)));
        let mut names = Names::new(folders.iter().map(String::as_str));
        let given = folders.each_ref().map(|folder| names.for_tfs(folder));
        let cut = "a".repeat(MAX_NAME);
        assert_eq!(given, [cut.clone(), format!("{cut}_2"), format!("{cut}_3")]);
    }
}
