//! Links `sagemaker-tfs-python` so that it finds the library of the Python it is built with.

#![forbid(unsafe_code)]

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "python")]
    python::link();
}

#[cfg(feature = "python")]
mod python {
    use std::path::{Path, PathBuf};

    /// Folders that the dynamic linker searches by default.
    const USUAL: &[&str] = &["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib"];

    pub fn link() {
        let python = pyo3_build_config::get();
        let option = |text: &str| println!("cargo:rustc-link-arg-bin=sagemaker-tfs-python={text}");
        if !python.shared() {
            // Python is linked in statically, and extension modules look for its symbols in the executable.
            option("-Wl,--export-dynamic");
            return;
        }
        let Some(folder) = library_folder(python) else {
            return; // the linker reports what is missing
        };
        println!("cargo:rustc-link-search=native={}", folder.display());
        let is_usual =
            |usual: &&str| folder.parent() == Some(Path::new(usual)) || folder == Path::new(usual);
        if !USUAL.iter().any(is_usual) {
            option(&format!("-Wl,-rpath,{}", folder.display()));
        }
    }

    /// The folder that holds the library. Python's own report is not enough: a relocated build names the folder in
    /// which it was built. So the folder `lib` next to the executable's folder is tried, too.
    fn library_folder(python: &pyo3_build_config::InterpreterConfig) -> Option<PathBuf> {
        let file = format!("lib{}.so", python.lib_name()?);
        let reported = python.lib_dir().map(PathBuf::from);
        let relocated = python.executable().and_then(|executable| {
            let executable = Path::new(executable).canonicalize().ok()?;
            Some(executable.parent()?.parent()?.join("lib"))
        });
        reported
            .into_iter()
            .chain(relocated)
            .find(|folder| folder.join(&file).exists())
    }
}
