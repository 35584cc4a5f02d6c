//! Archives of arrays, as `numpy.savez` makes them: a zip file with a stored file `NAME.npy` for each array.

use std::io::{self, Write};

use rawzip::ZipArchiveWriter;

use crate::budget::{Buffer, NoRoom};
use crate::error::shown;

use super::npy::Arrays;
use super::problem::Problem;

/// Bytes that an archive needs for each file, besides twice its name.
const OVERHEAD: usize = 256;

/// Packs the arrays into an archive in `out`, which is empty. Each is dropped when it is packed.
///
/// # Errors
/// For a name that archives cannot have, or when no memory is left.
pub fn pack(arrays: Arrays, out: Buffer) -> Result<Buffer, Problem> {
    if let Some(array) = arrays.list.iter().find(|array| !is_path(&array.name)) {
        return Err(Problem::unfit(format!(
            "The output {} cannot be the name of a file in an archive. Send Accept: application/json.",
            shown(&array.name)
        )));
    }
    let mut names: Vec<&str> = arrays
        .list
        .iter()
        .map(|array| array.name.as_str())
        .collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Problem::unfit(format!(
            "The response has two outputs with the name {}. Send Accept: application/json.",
            shown(pair[0])
        )));
    }
    let lengths = arrays
        .list
        .iter()
        .map(|array| array.file.len() + 2 * array.name.len() + OVERHEAD);
    let mut target = Target { out, no_room: None };
    target
        .out
        .reserve_exact(lengths.sum::<usize>() + OVERHEAD)?;
    // The archive's list of files, which is written at its end.
    let names: usize = arrays
        .list
        .iter()
        .map(|array| 2 * array.name.len() + OVERHEAD)
        .sum();
    let _memory = target.out.reserve_outside(names)?;
    match write(arrays, &mut target) {
        Ok(()) => Ok(target.out),
        Err(error) => Err(match target.no_room {
            Some(no_room) => Problem::NoRoom(no_room),
            None => Problem::unfit(format!("The outputs do not fit into an archive: {error}.")),
        }),
    }
}

/// Whether an archive keeps the name as it is: a relative path of usual segments.
fn is_path(name: &str) -> bool {
    let is_usual = |segment: &str| !matches!(segment, "" | "." | "..");
    !name.contains(['\\', ':', '\0']) && name.split('/').all(is_usual)
}

fn write(arrays: Arrays, target: &mut Target) -> Result<(), rawzip::Error> {
    let mut archive = ZipArchiveWriter::new(target);
    for array in arrays.list {
        let name = format!("{}.npy", array.name);
        let (mut entry, config) = archive.new_file(name.as_str()).start()?;
        let mut file = config.wrap(&mut entry);
        file.write_all(&array.file)?;
        let (_, descriptor) = file.finish()?;
        entry.finish(descriptor)?;
    }
    archive.finish()?;
    Ok(())
}

/// A buffer as a writer that remembers why it failed.
struct Target {
    out: Buffer,
    no_room: Option<NoRoom>,
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.extend(bytes).map_err(|no_room| {
            self.no_room = Some(no_room);
            io::Error::from(io::ErrorKind::OutOfMemory)
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
