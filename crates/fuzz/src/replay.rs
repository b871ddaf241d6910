//! Runs targets on every seed in the tests: what was found once is not found again. Each seed is also
//! run with some bytes changed, always the same ones; looking for new defects is `make fuzz`.

use std::fs;
use std::path::Path;

/// Changed copies of each seed.
const CHANGED: u64 = 40;

type Target = fn(&[u8]);

/// Runs each target on the seeds in the folder of its name, of which there must be some.
pub fn all(targets: &[(&str, Target)]) {
    for (name, target) in targets {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/seeds")
            .join(name);
        let mut seeds: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{} has no seeds", folder.display());
        for seed in seeds {
            let bytes = fs::read(&seed).unwrap();
            target(&bytes);
            for round in 1..=CHANGED {
                target(&changed(&bytes, round));
            }
        }
    }
}

fn changed(bytes: &[u8], round: u64) -> Vec<u8> {
    let mut state = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = bytes.to_vec();
    for _ in 0..=round % 4 {
        let at = usize::try_from(next()).unwrap_or(0) % (bytes.len() + 1);
        match next() % 4 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, next().to_le_bytes()[0]),
            2 => bytes.extend_from_within(..at.min(256)),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (next() % 8);
                }
            }
        }
    }
    bytes
}
