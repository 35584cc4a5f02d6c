//! Checksums bit by bit, to compare with the tables of the crates that the program uses.

/// The polynomial of ZIP and gzip, reflected.
pub const CRC32: u32 = 0xedb8_8320;
/// The polynomial of TFRecord, reflected.
pub const CRC32C: u32 = 0x82f6_3b78;

/// The 32-bit CRC of bytes.
pub fn crc(polynomial: u32, bytes: &[u8]) -> u32 {
    let mut state = u32::MAX;
    for &byte in bytes {
        state ^= u32::from(byte);
        for _ in 0..8 {
            let low = state & 1;
            state = (state >> 1) ^ (polynomial * low);
        }
    }
    !state
}
