//! Tests the structure checks on small made-up sources.

use std::collections::BTreeSet;

use crate::modules::Tree;
use crate::source::{functions, production_code};
use crate::{LONGEST_FILE, LONGEST_FUNCTION, production_lines, too_long, wrong_imports};

const TWO_LAYERS: &[(&str, &str)] = &[("low", ""), ("high", "low")];

/// The imports of these files, `from -> to`.
fn imports(files: &[(&str, &str)]) -> Vec<String> {
    let imports = Tree::new(files.iter().copied()).imports().into_iter();
    let text = |i: crate::modules::Import| format!("{} -> {}", i.from.join("::"), i.to.join("::"));
    imports.map(text).collect()
}

fn circles(files: &[(&str, &str)]) -> Vec<String> {
    Tree::new(files.iter().copied())
        .circles()
        .into_iter()
        .collect()
}

fn judged(files: &[(&str, &str)]) -> BTreeSet<String> {
    wrong_imports(&Tree::new(files.iter().copied()), TWO_LAYERS)
}

#[test]
fn an_import_from_above_is_reported_in_every_form() {
    for text in [
        "use crate::high::Thing;",
        "use crate::high;",
        "use crate::{high::Thing as Other};",
        "use crate::{low::x, high::{self, a::{b, c}}};",
        "use super::high::Thing;",
        "pub(crate) use crate::high::Thing;",
        "fn f() { let x = crate::high::f(); }",
        "fn f() -> Option<super::high::Thing> { None }",
        "fn f() { use crate::high::*; }",
        "struct S<'a>(&'a str, crate::high::T);",
        "const C: char = '\"'; use crate::high::D;",
        "const R: &str = r#\"a\"b\"#; use crate::high::D;",
        "const E: &str = \"\\\\\"; use crate::high::D;",
        "/* a /* b */ c */ use crate::high::D;",
        "#[cfg(test)]\nmod tests {\n    use super::*;\n}\nuse crate::high::D;",
        "#[cfg(test)]\nuse std::fs;\nuse crate::high::D;",
        "#[cfg(test)]\nfn f<A, B>(a: A) -> B { a }\nuse crate::high::D;",
        "struct S {\n    #[cfg(test)]\n    a: u8,\n    b: crate::high::D,\n}",
        "fn f() { vec![crate::high::D] }",
    ] {
        let wrong = judged(&[("low.rs", text), ("high.rs", "")]);
        assert_eq!(wrong.len(), 1, "{text}: {wrong:?}");
        let wrong = wrong.first().expect("one");
        assert!(wrong.contains("src/low.rs:"), "{wrong}");
        assert!(wrong.contains("`low` imports `high`"), "{wrong}");
    }
}

#[test]
fn allowed_imports_and_text_that_is_no_import_are_not_reported() {
    for text in [
        "",
        "use std::high::Thing;",
        "// use crate::high::Thing;",
        "//! See [`crate::high`].",
        "/* crate::high::f() */",
        "const S: &str = \"crate::high::f()\";",
        "const S: &str = r#\"\" crate::high::f()\"#;",
        "#[cfg(test)]\nmod tests {\n    use crate::high::Thing;\n}",
        "#[cfg(test)]\nuse crate::high::Thing;",
        "#[cfg(test)]\npub fn f<A, B>() -> crate::high::D {}",
        "fn f<'a>() -> impl Fn() + use<'a> { let x = 'x'; }",
        "use crate::low::Thing;",
        "use super::low::Thing;",
        "pub(in crate::high) struct Thing;",
        "fn f() { log::info!(\"\"); high::f(); }",
    ] {
        let wrong = judged(&[("low.rs", text), ("high.rs", "use crate::low::Thing;")]);
        assert!(wrong.is_empty(), "{text}: {wrong:?}");
    }
}

#[test]
fn a_module_missing_from_the_table_is_reported() {
    let wrong = judged(&[("low.rs", ""), ("new/mod.rs", ""), ("new/part.rs", "")]);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong.iter().all(|text| text.contains("Add it to LAYERS")));
}

#[test]
fn an_import_points_to_the_file_that_owns_the_name() {
    let http = "mod server;\npub mod head;\npub use server::Server;\npub struct Own;";
    let files = |user| {
        [
            ("http/mod.rs", http),
            ("http/server.rs", ""),
            ("http/head.rs", ""),
            ("user.rs", user),
        ]
    };
    for (user, expected) in [
        ("use crate::http::Server;", "user -> http::server"),
        ("use crate::http::Own;", "user -> http"),
        ("use crate::http::head::Head;", "user -> http::head"),
        ("use crate::http; fn f() -> http::Own {}", "user -> http"),
    ] {
        assert_eq!(imports(&files(user)), [expected], "{user}");
    }
    let by_name = "use crate::http; fn f() -> http::head::Head {}";
    assert_eq!(
        imports(&files(by_name)),
        ["user -> http", "user -> http::head"]
    );
}

#[test]
fn the_executables_have_roots_of_their_own() {
    let files = [
        ("lib.rs", "pub mod low;"),
        ("low.rs", ""),
        ("main.rs", "use sagemaker_tfs::low;"),
        ("python/main.rs", "mod part;\nuse sagemaker_tfs::low::X;"),
        ("python/part.rs", "use crate::Z; use super::Y;"),
    ];
    let expected = ["main -> low", "python -> low", "python::part -> python"];
    assert_eq!(imports(&files), expected);
}

#[test]
fn circles_are_reported() {
    let two = [("a.rs", "use crate::b::X;"), ("b.rs", "\nuse crate::a::Y;")];
    assert_eq!(circles(&two), ["a -> b (src/a.rs:1), b -> a (src/b.rs:2)"]);
    // Among the parts of a module, through a name that the module re-exports.
    let three = [
        ("a/mod.rs", "mod x;\nmod y;\nmod z;\npub use y::Y;"),
        ("a/x.rs", "use super::Y;"),
        ("a/y.rs", "use crate::a::z::Z;"),
        ("a/z.rs", "fn f() { super::x::g() }"),
    ];
    let expected =
        "a::x -> a::y (src/a/x.rs:1), a::y -> a::z (src/a/y.rs:1), a::z -> a::x (src/a/z.rs:1)";
    assert_eq!(circles(&three), [expected]);
    // Between modules, although no two files import each other.
    let modules = [
        ("a/mod.rs", ""),
        ("b/mod.rs", ""),
        ("a/x.rs", "use crate::b::y::Y;"),
        ("a/z.rs", ""),
        ("b/y.rs", ""),
        ("b/w.rs", "use crate::a::z::Z;"),
    ];
    assert_eq!(
        circles(&modules),
        ["a -> b (src/a/x.rs:1), b -> a (src/b/w.rs:1)"]
    );
    let nested = [
        ("a.rs", ""),
        ("a/x.rs", "use super::y::p::P;"),
        ("a/y.rs", ""),
        ("a/y/p.rs", "use crate::a::x;"),
    ];
    assert_eq!(circles(&nested).len(), 1);
}

#[test]
fn a_module_and_its_parts_do_not_count_as_a_circle() {
    for module in ["a.rs", "a/mod.rs"] {
        let files = [
            (
                module,
                "mod x;\nmod y;\npub use x::X;\npub use y::Y;\npub struct A(x::X);",
            ),
            ("a/x.rs", "use super::{A, Y};"),
            ("a/y.rs", "use std::fmt;\nuse crate::a::A;"),
            ("b.rs", "use crate::a::{X, Y};"),
        ];
        assert!(circles(&files).is_empty(), "{:?}", circles(&files));
    }
}

#[test]
fn test_modules_in_their_own_files_are_left_out() {
    let files = [
        ("a.rs", "#[cfg(test)]\nmod simulation;\nmod part;"),
        ("a/simulation.rs", "use crate::b::B;"),
        ("a/part.rs", ""),
        ("b.rs", "use crate::a::A;"),
    ];
    assert_eq!(imports(&files), ["b -> a"]);
}

#[test]
fn the_length_of_functions_is_measured() {
    let text = "impl A {\n    pub fn one(&self) -> [u8; 2] {\n        [1, 2]\n    }\n}\n\ntype T = fn(u8);\n\
                trait B { fn none(&self); }\n/// fn no() {\nfn two<F>(f: F)\nwhere\n    F: Fn(u8),\n{\n    let s = \"}\";\n\
                \n    f(1);\n}\n";
    let found = functions(&production_code(text));
    let found: Vec<_> = found
        .iter()
        .map(|f| (f.name.as_str(), f.line, f.lines))
        .collect();
    assert_eq!(found, [("one", 2, 3), ("two", 10, 8)]);
}

#[test]
fn files_and_functions_that_are_too_long_are_reported() {
    let longest = |lines: usize| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
    let found = |text: String| too_long(&Tree::new([("a.rs", text)]));
    assert!(found(longest(LONGEST_FUNCTION)).is_empty());
    assert_eq!(found(longest(LONGEST_FUNCTION + 1)).len(), 1);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", longest(900));
    assert!(found(tests.clone()).is_empty());

    let file = "const A: u8 = 1;\n".repeat(LONGEST_FILE);
    assert!(found(format!("{file}\n{tests}")).is_empty());
    let longer = format!("{file}const B: u8 = 1;\n{tests}");
    assert_eq!(found(longer.clone()).len(), 1);
    assert_eq!(found(format!("//! Long because \n{longer}")).len(), 1);
    assert_eq!(found(format!("// Long because.\n{longer}")).len(), 1);
    let reasoned =
        format!("//! All of it.\n//! Long because one table has to be read as one.\n\n{longer}");
    assert!(found(reasoned).is_empty());
}

#[test]
fn comments_count_as_lines_and_tests_do_not() {
    let text = "//! Head.\n\n/// Doc.\nconst A: &str = \"\n  x\n\";\n\n// Of the tests.\n#[cfg(test)]\nmod tests {\n    // x\n    \
                fn f() {}\n}\n";
    let lines = production_lines(text, &production_code(text));
    assert_eq!(lines, 6);
}
