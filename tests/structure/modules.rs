//! Which file imports which: resolves each path in the code to the file that owns the name.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{self, Named};

/// A module's path from the root of the library; `main` and `python` are the roots of the two executables.
pub type Module = Vec<String>;

/// A file of production code.
#[derive(Debug)]
pub struct File {
    /// Relative to the package.
    pub path: String,
    /// As it is on disk.
    pub text: String,
    /// Without comments, literals and tests, line for line.
    pub code: String,
    named: Vec<Named>,
}

/// One file needs another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    pub from: Module,
    pub to: Module,
    /// The file and line of the import, for messages.
    pub place: String,
}

/// All files of `src`.
#[derive(Debug)]
pub struct Tree {
    pub files: BTreeMap<Module, File>,
}

impl Tree {
    /// From paths below `src/` with their texts.
    pub fn new<P: Into<String>, T: Into<String>>(files: impl IntoIterator<Item = (P, T)>) -> Self {
        let files = files.into_iter().map(|(path, text)| {
            let (path, text) = (path.into(), text.into());
            let code = source::production_code(&text);
            let named = source::named_paths(&code);
            let module = module_of(&path);
            let file = File {
                path: format!("src/{path}"),
                text,
                code,
                named,
            };
            (module, file)
        });
        let mut files: BTreeMap<Module, File> = files.collect();
        let tests = files.keys().filter(|module| is_test(module, &files));
        for module in tests.cloned().collect::<Vec<_>>() {
            files.remove(&module);
        }
        Self { files }
    }

    /// Every import of one file by another. A name that a file only re-exports with `pub use` does not count as its
    /// import: code that uses the name imports the file that owns it.
    pub fn imports(&self) -> Vec<Import> {
        let mut found = BTreeMap::new();
        for (from, file) in &self.files {
            for named in &file.named {
                let Some(to) = self.owner(from, &named.path, 0) else {
                    continue;
                };
                let passes_on = named.is_reexport && is_below(&to, from);
                if to != *from && !to.is_empty() && !passes_on {
                    let place = format!("{}:{}", file.path, named.line);
                    found.entry((from.clone(), to)).or_insert(place);
                }
            }
        }
        let imports = found.into_iter();
        let import = |((from, to), place)| Import { from, to, place };
        imports.map(import).collect()
    }

    /// The module whose file owns the name at the end of this path; `None`: the path leads to another crate or to no
    /// module.
    fn owner(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        // Two names may refer to each other.
        if depth > 16 {
            return None;
        }
        let (first, mut rest) = path.split_first()?;
        let mut module = match first.as_str() {
            "crate" => root_of(from),
            "sagemaker_tfs" => Module::new(),
            "self" => from.clone(),
            "super" => {
                let mut module = parent(from)?;
                while let Some(("super", more)) = rest.split_first().map(|(s, r)| (s.as_str(), r)) {
                    module = parent(&module)?;
                    rest = more;
                }
                module
            }
            name => match self.child(from, name) {
                Some(child) => child,
                // A name that a `use` brought into scope, unless this path is that `use` itself.
                None => return self.follow(from, path, depth),
            },
        };
        while let Some((segment, more)) = rest.split_first() {
            match self.child(&module, segment) {
                Some(child) => module = child,
                None if module == *from => break,
                None => return Some(self.follow(&module, rest, depth).unwrap_or(module)),
            }
            rest = more;
        }
        Some(module)
    }

    /// The owner of a name that `module` brought into scope with `use`.
    fn follow(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        let (name, rest) = path.split_first()?;
        let mut named = self.files.get(module)?.named.iter();
        let is_it = |named: &&Named| named.bound_as.as_ref() == Some(name) && named.path != path;
        let binding = named.find(is_it)?;
        let whole = [&binding.path, rest].concat();
        self.owner(module, &whole, depth + 1)
    }

    fn child(&self, module: &Module, name: &str) -> Option<Module> {
        let mut child = module.clone();
        child.push(name.to_owned());
        // The roots of the executables are not children of the library.
        let is_root = child == ["main"] || child == ["python"];
        (!is_root && self.files.contains_key(&child)).then_some(child)
    }

    /// The circles of imports, each with the lines that form it.
    ///
    /// The rule is the same at every level: the parts of a module, each with everything below it, do not import each
    /// other in a circle. A module's own file may use and re-export its parts, and they may use its definitions.
    pub fn circles(&self) -> BTreeSet<String> {
        let mut places = BTreeMap::new();
        for Import { from, to, place } in self.imports() {
            let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if from.len() > same && to.len() > same {
                let parts = (from[..=same].to_vec(), to[..=same].to_vec());
                places.entry(parts).or_insert(place);
            }
        }
        let text = |circle: Vec<Module>| {
            let nexts = circle.iter().cycle().skip(1);
            let steps = circle.iter().zip(nexts).map(|(from, to)| {
                let place = &places[&(from.clone(), to.clone())];
                format!("{} -> {} ({place})", from.join("::"), to.join("::"))
            });
            steps.collect::<Vec<_>>().join(", ")
        };
        circles(places.keys()).into_iter().map(text).collect()
    }
}

/// `http/mod.rs` and `http.rs` are the module `http`.
fn module_of(path: &str) -> Module {
    let path = path.strip_suffix(".rs").expect("a Rust file");
    let mut module: Module = path.split('/').map(str::to_owned).collect();
    match module.last().map(String::as_str) {
        Some("lib") if module.len() == 1 => module.clear(),
        Some("mod") => drop(module.pop()),
        Some("main") if module.len() > 1 => drop(module.pop()),
        _ => {}
    }
    module
}

/// Whether the module or one of its ancestors is declared under `#[cfg(test)]`, that is, not in the production code of
/// its parent.
fn is_test(module: &Module, files: &BTreeMap<Module, File>) -> bool {
    (1..=module.len()).any(|length| {
        let (name, parent) = module[..length].split_last().expect("not empty");
        let declares = |text: &str| text.contains(&format!("mod {name};"));
        let parent = files.get(parent);
        parent.is_some_and(|file| declares(&file.text) && !declares(&file.code))
    })
}

fn is_below(module: &Module, ancestor: &Module) -> bool {
    module.len() > ancestor.len() && module.starts_with(ancestor)
}

fn parent(module: &Module) -> Option<Module> {
    let (_, parent) = module.split_last()?;
    Some(parent.to_vec())
}

fn root_of(module: &Module) -> Module {
    let is_executable = ["main", "python"].contains(&module.first().map_or("", String::as_str));
    module[..usize::from(is_executable)].to_vec()
}

/// The shortest circle through each module that is part of one; each circle appears once.
fn circles<'a>(edges: impl Iterator<Item = &'a (Module, Module)>) -> BTreeSet<Vec<Module>> {
    let mut graph: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (from, to) in edges {
        graph.entry(from.clone()).or_default().insert(to.clone());
    }
    let mut found = BTreeSet::new();
    for start in graph.keys() {
        let Some(mut circle) = shortest_circle(&graph, start) else {
            continue;
        };
        // Makes the circle the same whichever module it was found from.
        let first = circle.iter().enumerate().min_by_key(|(_, module)| *module);
        let first = first.map_or(0, |(index, _)| index);
        circle.rotate_left(first);
        found.insert(circle);
    }
    found
}

fn shortest_circle(
    graph: &BTreeMap<Module, BTreeSet<Module>>,
    start: &Module,
) -> Option<Vec<Module>> {
    let mut seen = BTreeSet::new();
    let mut ways = vec![vec![start.clone()]];
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let last = way.last().expect("not empty");
            for next in graph.get(last).into_iter().flatten() {
                if next == start {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push([way.as_slice(), std::slice::from_ref(next)].concat());
                }
            }
        }
        ways = longer;
    }
    None
}
