//! Converts several numpy arrays, in the format of `numpy.savez`: a ZIP archive with a file `NAME.npy` for each array.
//!
//! Arrays with the same number of rows become rows with a member for each array; others become the column form.

use std::collections::HashSet;

use flate2::bufread::DeflateDecoder;
use rawzip::{
    CompressionMethod, ZipArchive, ZipFileHeaderRecord, ZipSliceArchive, ZipSliceEntry,
    ZipVerification,
};

use super::encoding::{ReadError, read_to_end};
use super::npy::{Array, release_unused};
use super::target::escape;
use super::{Rows, Target};
use crate::budget::{Buffer, NoRoom};
use crate::convert::signature::Signature;
use crate::error::{RequestError, shown};

/// The first bytes of a file.
pub const MAGIC: &[u8] = b"PK\x03\x04";

/// The most arrays in an archive. Models have a few dozen inputs at most.
const MAX_ARRAYS: usize = 1000;
/// The most bytes of a name, which every row of the result repeats.
const MAX_NAME_BYTES: usize = 200;
/// The most names that a message shows.
const MAX_SHOWN_NAMES: usize = 5;

/// Converts an npz file.
///
/// # Errors
/// 400 for a broken archive, for arrays that JSON cannot carry or that are not those of the signature; 413 or 503 when no
/// memory is left for the conversion or for the decompressed arrays.
pub fn to_tfs(body: &Buffer, target: &Target) -> Result<Buffer, RequestError> {
    let archive = ZipArchive::from_slice(&body[..]).map_err(|error| not_zip(&error))?;
    let files = read_files(&archive, body)?;
    // classify and regress take features, which are not the inputs of the signature.
    let signature = target.signature.as_deref();
    let signature = signature.filter(|_| target.rows == Rows::Instances);
    if let ([file], Some(only)) = (&files[..], target.only_input()) {
        let mut array = Array::parse(file.bytes(), file.label(), Some(only))?;
        array.become_rows();
        return write_all(body, target.opening(), array.likely_text(), |out| {
            array.write(out)
        });
    }
    if let Some(signature) = signature {
        check_names(&files, signature)?;
    }
    let mut arrays = Vec::new();
    for file in &files {
        let mut inputs = signature
            .into_iter()
            .flat_map(|signature| &signature.inputs);
        let input = inputs.find(|input| input.name == file.name);
        let array = Array::parse(file.bytes(), file.label(), input)?;
        arrays.push((file.key(body)?, array));
    }
    let likely = arrays.iter().map(|(_, array)| array.likely_text()).sum();
    let common = arrays[0].1.shape().first().copied();
    let rows = common.filter(|_| {
        arrays
            .iter()
            .all(|(_, array)| array.shape().first() == common.as_ref())
    });
    if target.rows == Rows::Examples {
        let is_feature = |array: &Array| matches!(array.shape().len(), 1 | 2);
        if rows.is_none() || !arrays.iter().all(|(_, array)| is_feature(array)) {
            return Err(RequestError::bad_request(
                "classify and regress take rows with named features: arrays of 1 or 2 dimensions that all have the \
                 same number of rows, their first dimension.",
            ));
        }
    }
    match rows {
        Some(rows) => {
            let keys = arrays.iter().map(|(key, _)| key.len()).sum::<usize>() + 2;
            let likely = usize::saturating_add(likely, keys.saturating_mul(rows));
            write_all(body, target.opening(), likely, |out| {
                write_rows(&arrays, rows, out)
            })
        }
        None => write_all(body, target.opening_with("inputs"), likely, |out| {
            write_columns(&arrays, out)
        }),
    }
}

/// Writes a request whose content is likely to have this many bytes.
fn write_all(
    body: &Buffer,
    opening: String,
    likely: usize,
    write: impl FnOnce(&mut Buffer) -> Result<(), RequestError>,
) -> Result<Buffer, RequestError> {
    let mut out = body.sibling();
    out.reserve_likely(likely.saturating_add(opening.len() + 1), opening.len())?;
    out.extend(opening.as_bytes())?;
    write(&mut out)?;
    out.extend(b"}")?;
    release_unused(&mut out)?;
    Ok(out)
}

/// Writes a list of objects with a member for each array.
fn write_rows(
    arrays: &[(Buffer, Array)],
    rows: usize,
    out: &mut Buffer,
) -> Result<(), RequestError> {
    out.extend(b"[")?;
    for row in 0..rows {
        let mut before: &[u8] = if row == 0 { b"{" } else { b",{" };
        for (key, array) in arrays {
            out.extend(before)?;
            out.extend(key)?;
            array.write_row(row, out)?;
            before = b",";
        }
        out.extend(b"}")?;
    }
    out.extend(b"]")?;
    Ok(())
}

/// Writes an object with a member for each array.
fn write_columns(arrays: &[(Buffer, Array)], out: &mut Buffer) -> Result<(), RequestError> {
    let mut before = b"{";
    for (key, array) in arrays {
        out.extend(before)?;
        out.extend(key)?;
        array.write(out)?;
        before = b",";
    }
    out.extend(b"}")?;
    Ok(())
}

/// A file of the archive.
struct File<'a> {
    /// The name without `.npy`.
    name: &'a str,
    content: Content<'a>,
}

enum Content<'a> {
    Stored(&'a [u8]),
    Decompressed(Buffer),
}

impl File<'_> {
    fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Stored(bytes) => bytes,
            Content::Decompressed(bytes) => bytes,
        }
    }

    /// The subject of messages.
    fn label(&self) -> String {
        format!("The array {}", shown(self.name))
    }

    /// The name as a key in JSON, with the colon.
    fn key(&self, body: &Buffer) -> Result<Buffer, NoRoom> {
        /// The longest escape of one byte: `\u0000`.
        const LONGEST_ESCAPE: usize = 6;
        let mut key = body.sibling();
        key.reserve_exact(self.name.len() * LONGEST_ESCAPE + b"\"\":".len())?;
        key.extend(b"\"")?;
        escape(self.name.as_bytes(), &mut key)?;
        key.extend(b"\":")?;
        Ok(key)
    }
}

/// Reads the files of an archive, in the order of their bytes; at least one.
fn read_files<'a>(
    archive: &'a ZipSliceArchive<&[u8]>,
    body: &Buffer,
) -> Result<Vec<File<'a>>, RequestError> {
    let broken = |error| not_zip(&error);
    let mut found = Vec::new();
    let mut names = HashSet::new();
    let mut entries = archive.entries();
    while let Some(header) = entries.next_entry().map_err(broken)? {
        if found.len() == MAX_ARRAYS {
            return Err(wrong(&format!("has more than {MAX_ARRAYS} arrays")));
        }
        let name = array_name(&header)?;
        if !names.insert(name) {
            return Err(wrong(&format!("has the array {} twice", shown(name))));
        }
        let flags = header.flags();
        if flags.is_encrypted() || flags.has_strong_encryption() || flags.is_masked() {
            return Err(wrong_file(name, &"it is encrypted"));
        }
        let entry = archive.get_entry(header.wayfinder());
        let entry = entry.map_err(|error| wrong_file(name, &error))?;
        found.push((
            header.local_header_offset(),
            header.compression_method(),
            name,
            entry,
        ));
    }
    // Files that share bytes could make a small archive large.
    found.sort_unstable_by_key(|&(start, ..)| start);
    let end = |entry: &ZipSliceEntry| entry.compressed_data_range().1;
    if found.windows(2).any(|pair| end(&pair[0].3) > pair[1].0) {
        return Err(wrong("has files that overlap"));
    }
    if found.is_empty() {
        return Err(wrong("has no arrays"));
    }
    let files = found.into_iter().map(|(_, method, name, entry)| {
        let content = match method {
            CompressionMethod::STORE => Content::Stored(stored(&entry, name)?),
            CompressionMethod::DEFLATE => Content::Decompressed(decompressed(&entry, name, body)?),
            other => {
                let method = other.as_u16();
                let problem = format!("it is compressed with method {method}; use numpy.savez");
                return Err(wrong_file(name, &problem));
            }
        };
        Ok(File { name, content })
    });
    files.collect()
}

/// The name of an array without `.npy`.
fn array_name<'a>(header: &ZipFileHeaderRecord<'a>) -> Result<&'a str, RequestError> {
    let path: &[u8] = header.file_path().as_bytes();
    let Ok(path) = str::from_utf8(path) else {
        let path = shown(&String::from_utf8_lossy(path));
        return Err(wrong(&format!(
            "has the file name {path}, which is not UTF-8"
        )));
    };
    let name = path.strip_suffix(".npy").ok_or_else(|| {
        wrong(&format!(
            "has the file {}, which is not an array: names end with .npy",
            shown(path)
        ))
    })?;
    if name.len() > MAX_NAME_BYTES {
        return Err(wrong(&format!(
            "has an array with a name of more than {MAX_NAME_BYTES} bytes, {}",
            shown(name)
        )));
    }
    Ok(name)
}

/// The content of a file that is not compressed.
fn stored<'a>(entry: &ZipSliceEntry<'a>, name: &str) -> Result<&'a [u8], RequestError> {
    let bytes = entry.data();
    let found = ZipVerification {
        crc: rawzip::crc32(bytes),
        uncompressed_size: bytes.len() as u64,
    };
    let verified = entry.claim_verifier().valid(found);
    verified.map_err(|error| wrong_file(name, &error))?;
    Ok(bytes)
}

/// The content of a file that is compressed with deflate.
fn decompressed(entry: &ZipSliceEntry, name: &str, body: &Buffer) -> Result<Buffer, RequestError> {
    let size = entry.claim_verifier().uncompressed_size;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let mut out = body.arriving_sibling();
    let mut reader = entry.verifying_reader(DeflateDecoder::new(entry.data()));
    read_to_end(&mut reader, &mut out, size).map_err(|error| match error {
        ReadError::Broken(error) => wrong_file(name, &error),
        ReadError::NoRoom(no_room) => no_room.into(),
        ReadError::TooLong => wrong_file(name, &"it is longer than it says"),
    })?;
    Ok(out)
}

/// Checks that there is an array for each input, and no other array.
fn check_names(files: &[File], signature: &Signature) -> Result<(), RequestError> {
    let given: HashSet<_> = files.iter().map(|file| file.name).collect();
    let wanted: HashSet<_> = signature
        .inputs
        .iter()
        .map(|input| input.name.as_str())
        .collect();
    let inputs = signature.inputs.iter().map(|input| input.name.as_str());
    let missing = list(inputs.clone().filter(|name| !given.contains(name)));
    let unknown = list(
        files
            .iter()
            .map(|file| file.name)
            .filter(|name| !wanted.contains(name)),
    );
    let problem = match (missing, unknown) {
        (None, None) => return Ok(()),
        (Some(missing), None) => format!("lacks {missing}"),
        (None, Some(unknown)) => format!("has {unknown}, which the signature does not have"),
        (Some(missing), Some(unknown)) => {
            format!("lacks {missing} and has {unknown}, which the signature does not have")
        }
    };
    let inputs = list(inputs).unwrap_or_else(|| "none".to_owned());
    Err(wrong(&format!(
        "{problem}; the inputs of the signature {} are: {inputs}",
        shown(&signature.name)
    )))
}

/// Names for a message; `None` if there are none.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut names = names.peekable();
    names.peek()?;
    let mut parts: Vec<_> = names.by_ref().take(MAX_SHOWN_NAMES).map(shown).collect();
    let more = names.count();
    if more > 0 {
        parts.push(format!("and {more} more"));
    }
    Some(parts.join(", "))
}

fn not_zip(error: &rawzip::Error) -> RequestError {
    wrong(&format!("is not a valid ZIP archive: {error}"))
}

fn wrong(problem: &str) -> RequestError {
    RequestError::bad_request(format!("The npz archive {problem}."))
}

fn wrong_file(name: &str, problem: &dyn std::fmt::Display) -> RequestError {
    wrong(&format!(
        "has the array {}, which cannot be read: {problem}",
        shown(name)
    ))
}

#[cfg(test)]
mod tests {
    use super::super::npy::testing::{f32s, npy};
    use super::*;
    use crate::budget::Budget;
    use crate::convert::signature::testing::{signature, tensor};
    use crate::convert::signature::{Dtype, Tensor};
    use proptest::prelude::*;
    use rawzip::{ZipArchiveWriter, path::EntryPath};
    use std::io::Write;

    /// An archive with these files.
    fn archive(files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
        let mut archive = ZipArchiveWriter::new(Vec::new());
        for (name, content) in files {
            let path = EntryPath::verbatim(name.as_bytes().to_vec());
            let builder = archive.new_file(path).compression_method(method);
            let (mut entry, config) = builder.start().unwrap();
            let mut compressed = Vec::new();
            let (_, output) = if method == CompressionMethod::DEFLATE {
                let encoder = flate2::write::DeflateEncoder::new(
                    &mut compressed,
                    flate2::Compression::fast(),
                );
                let mut writer = config.wrap(encoder);
                writer.write_all(content).unwrap();
                let (encoder, output) = writer.finish().unwrap();
                encoder.finish().unwrap();
                ((), output)
            } else {
                let mut writer = config.wrap(&mut compressed);
                writer.write_all(content).unwrap();
                let (_, output) = writer.finish().unwrap();
                ((), output)
            };
            entry.write_all(&compressed).unwrap();
            entry.finish(output).unwrap();
        }
        archive.finish().unwrap()
    }

    fn stored(files: &[(&str, &[u8])]) -> Vec<u8> {
        archive(files, CompressionMethod::STORE)
    }

    fn target(inputs: Vec<Tensor>) -> Target {
        Target {
            signature: Some(signature(inputs, Vec::new())),
            ..Target::default()
        }
    }

    fn converted(file: &[u8], target: &Target) -> Result<String, String> {
        let out = to_tfs(&file.to_vec().into(), target);
        let out = out.map_err(|error| {
            assert_eq!(error.status, 400, "{error}");
            assert!(error.text.len() < 2048, "{error}");
            error.text
        });
        out.map(|out| String::from_utf8(out.to_vec()).unwrap())
    }

    fn u8s(shape: &[usize], data: &[u8]) -> Vec<u8> {
        npy("|u1", false, shape, data)
    }

    #[test]
    fn arrays_with_equally_many_rows_become_rows() {
        let (a, b) = (u8s(&[2], &[1, 2]), u8s(&[2, 2], &[3, 4, 5, 6]));
        let files: &[(&str, &[u8])] = &[("a.npy", &a), ("b/\"c\".npy", &b)];
        for method in [CompressionMethod::STORE, CompressionMethod::DEFLATE] {
            assert_eq!(
                converted(&archive(files, method), &Target::default()).unwrap(),
                r#"{"instances": [{"a":1,"b/\"c\"":[3,4]},{"a":2,"b/\"c\"":[5,6]}]}"#
            );
        }
        let one = stored(&[("arr_0.npy", &u8s(&[0], &[]))]);
        assert_eq!(
            converted(&one, &Target::default()).unwrap(),
            r#"{"instances": []}"#
        );
    }

    #[test]
    fn other_arrays_become_columns() {
        let (a, b) = (u8s(&[2], &[1, 2]), u8s(&[], &[3]));
        let file = stored(&[("a.npy", &a), ("b.npy", &b)]);
        let named = Target {
            signature_name: Some("s".into()),
            ..Target::default()
        };
        assert_eq!(
            converted(&file, &named).unwrap(),
            r#"{"signature_name": "s", "inputs": {"a":[1,2],"b":3}}"#
        );
        let file = stored(&[("a.npy", &a), ("b.npy", &u8s(&[1, 2], &[1, 2]))]);
        assert_eq!(
            converted(&file, &Target::default()).unwrap(),
            r#"{"inputs": {"a":[1,2],"b":[[1,2]]}}"#
        );
    }

    #[test]
    fn each_input_decides_about_its_array() {
        let a = npy("<f4", false, &[2], &f32s(&[1.0, 2.0]));
        let file = stored(&[
            ("a.npy", &a),
            ("b.npy", &u8s(&[], &[1])),
            ("c.npy", &u8s(&[1], &[1])),
        ]);
        let inputs = vec![
            tensor("a", Dtype::Int32, &[-1, 2]),
            tensor("b", Dtype::Bool, &[-1, 1]),
            tensor("c", Dtype::Float, &[-1]),
        ];
        assert_eq!(
            converted(&file, &target(inputs.clone())).unwrap(),
            r#"{"instances": [{"a":[1,2],"b":[true],"c":1}]}"#
        );
        let wrong = npy("<f4", true, &[2, 1], &f32s(&[1.0, 2.5]));
        let b = u8s(&[2], &[1, 0]);
        let file = stored(&[("a.npy", &wrong), ("b.npy", &b), ("c.npy", &b)]);
        let error = converted(&file, &target(inputs)).unwrap_err();
        assert!(
            error.starts_with("The array \"a\" has the element 2.5 at [1, 0],"),
            "{error}"
        );
    }

    #[test]
    fn names_must_be_those_of_the_signature() {
        let a = u8s(&[1], &[1]);
        let input = |name| tensor(name, Dtype::Int32, &[-1]);
        let two = target(vec![input("a"), input("b")]);
        for (names, part) in [
            (
                &["a.npy"][..],
                "lacks \"b\"; the inputs of the signature \"serving_default\" are: \"a\", \"b\".",
            ),
            (&["a.npy", "c.npy"], "lacks \"b\" and has \"c\", which"),
            (&["a.npy", "b.npy", "c.npy"], "archive has \"c\", which"),
        ] {
            let files: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, &a[..])).collect();
            let error = converted(&stored(&files), &two).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let names: Vec<_> = (0..100).map(|i| format!("{i:0>200}.npy")).collect();
        let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &a[..])).collect();
        let error = converted(&stored(&files), &two).unwrap_err();
        assert!(error.contains("and 95 more"), "{error}");
    }

    #[test]
    fn a_single_array_is_the_single_input_whatever_its_name() {
        let one = target(vec![tensor("x", Dtype::Float, &[-1, 2])]);
        for (name, shape) in [("arr_0.npy", &[2][..]), ("x.npy", &[1, 2])] {
            let file = stored(&[(name, &npy("<f4", false, shape, &f32s(&[1.0, 2.0])))]);
            assert_eq!(
                converted(&file, &one).unwrap(),
                r#"{"instances": [[1.0,2.0]]}"#
            );
        }
        let file = stored(&[("arr_0.npy", &u8s(&[], &[1]))]);
        assert_eq!(converted(&file, &one).unwrap(), r#"{"instances": [1]}"#);
    }

    #[test]
    fn classify_and_regress_take_rows_of_features() {
        let examples = Target {
            rows: Rows::Examples,
            ..target(vec![tensor("inputs", Dtype::String, &[-1])])
        };
        let (a, b) = (u8s(&[2], &[1, 2]), u8s(&[2, 1], &[3, 4]));
        let file = stored(&[("a.npy", &a), ("b.npy", &b)]);
        assert_eq!(
            converted(&file, &examples).unwrap(),
            r#"{"examples": [{"a":1,"b":[3]},{"a":2,"b":[4]}]}"#
        );
        for other in [u8s(&[], &[1]), u8s(&[1], &[1]), u8s(&[2, 1, 1], &[1, 2])] {
            let file = stored(&[("a.npy", &a), ("b.npy", &other)]);
            let error = converted(&file, &examples).unwrap_err();
            assert!(error.contains("1 or 2 dimensions"), "{error}");
        }
    }

    #[test]
    fn refuses_archives_that_are_not_plain_sets_of_arrays() {
        let a = u8s(&[1], &[1]);
        let refusal = |file: &[u8]| converted(file, &Target::default()).unwrap_err();
        for (file, part) in [
            (stored(&[]), "no arrays"),
            (stored(&[("a.npy", &a), ("a.npy", &a)]), "\"a\" twice"),
            (stored(&[("a.txt", &a)]), "\"a.txt\", which is not an array"),
            (stored(&[("a/", b"")]), "not an array"),
            (stored(&[("a.npy", b"text")]), "\"a\" does not begin like"),
            (
                archive(&[("a.npy", &a)], CompressionMethod::BZIP2),
                "method 12",
            ),
            (a.clone(), "not a valid ZIP"),
            (b"PK\x03\x04".to_vec(), "not a valid ZIP"),
        ] {
            let error = refusal(&file);
            assert!(error.contains(part), "{error}");
        }
        let names: Vec<_> = (0..=MAX_ARRAYS).map(|i| format!("{i}.npy")).collect();
        let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &a[..])).collect();
        assert!(refusal(&stored(&files)).contains("more than 1000"));
        assert!(converted(&stored(&files[1..]), &Target::default()).is_ok());

        // Changes in the central directory, which begins with the second `PK\x01\x02`.
        let file = stored(&[("a.npy", &a), ("b.npy", &a)]);
        let directory = memchr::memmem::find(&file, b"PK\x01\x02").unwrap();
        let second =
            directory + 4 + memchr::memmem::find(&file[directory + 4..], b"PK\x01\x02").unwrap();
        let changed = |at: usize, bytes: &[u8]| {
            let mut file = file.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            refusal(&file)
        };
        assert!(changed(directory + 8, &[1]).contains("encrypted"));
        assert!(changed(directory + 16, &[0, 0, 0, 0]).contains("checksum"));
        assert!(changed(directory + 24, &[9]).contains("size"));
        assert!(changed(directory + 46, &[0xff]).contains("not UTF-8"));
        assert!(changed(second + 42, &[0, 0, 0, 0]).contains("overlap"));
        assert!(changed(second + 42, &[0xff, 0xff, 0, 0]).contains("cannot be read"));
        let at = memchr::memmem::find(&file, MAGIC).unwrap() + 1;
        assert!(changed(at + 100, b"!").contains("checksum"));
    }

    #[test]
    fn the_budget_stops_bombs() {
        let zeros = u8s(&[4 << 20], &vec![0; 4 << 20]);
        let file = archive(&[("a.npy", &zeros)], CompressionMethod::DEFLATE);
        assert!(file.len() < 100_000);
        let budget = Budget::new(2 << 20);
        let mut body = budget.arriving(0);
        body.extend(&file).unwrap();
        assert_eq!(to_tfs(&body, &Target::default()).unwrap_err().status, 413);
    }

    #[test]
    fn names_that_every_row_repeats_are_short() {
        for (length, is_accepted) in [(200, true), (201, false)] {
            let name = format!("{}.npy", "n".repeat(length));
            let file = stored(&[(&name, &u8s(&[3], &[0; 3]))]);
            let found = converted(&file, &Target::default());
            assert_eq!(found.is_ok(), is_accepted, "{found:?}");
        }
    }

    proptest! {
        #[test]
        fn damaged_archives_never_panic(
            changes in prop::collection::vec((0..600usize, any::<u8>()), 1..4),
            is_deflate: bool,
        ) {
            let (a, b) = (u8s(&[3, 2], &[1, 2, 3, 4, 5, 6]), u8s(&[3], &[0; 3]));
            let method = match is_deflate {
                true => CompressionMethod::DEFLATE,
                false => CompressionMethod::STORE,
            };
            let mut file = archive(&[("a.npy", &a), ("b.npy", &b)], method);
            for (at, byte) in changes {
                let length = file.len();
                file[at % length] = byte;
            }
            if let Ok(text) = converted(&file, &Target::default()) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            }
        }
    }
}
