//! Random choices, all drawn from generators that descend from the seed of the run.

use std::time::Duration;

use fastrand::Rng;

/// The index of one of these, chosen by weight.
pub fn weighted<T>(chance: &mut Rng, from: &[(f64, T)]) -> usize {
    let mut left = chance.f64() * from.iter().map(|(weight, _)| weight).sum::<f64>();
    let found = from.iter().position(|(weight, _)| {
        left -= weight;
        left < 0.0
    });
    found.unwrap_or(from.len() - 1)
}

pub fn pick<T: Copy>(chance: &mut Rng, from: &[T]) -> T {
    from[chance.usize(..from.len())]
}

pub fn seconds(chance: &mut Rng, low: f64, high: f64) -> Duration {
    Duration::from_secs_f64(low + chance.f64() * (high - low))
}

pub fn bytes(chance: &mut Rng, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    chance.fill(&mut bytes);
    bytes
}

/// Cuts the data at random places into `count` pieces; some may be empty.
pub fn cut<'a>(chance: &mut Rng, data: &'a [u8], count: usize) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = (1..count).map(|_| chance.usize(..=data.len())).collect();
    places.sort_unstable();
    places.push(data.len());
    let mut begin = 0;
    let piece = |end| &data[std::mem::replace(&mut begin, end)..end];
    places.into_iter().map(piece).collect()
}
