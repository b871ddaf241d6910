//! That one engine is in charge at a time, and that nobody waits for a dead one.

use std::io::Read;
use std::thread;

use super::*;

fn folder(name: &str) -> PathBuf {
    let unique = format!("vedette-handover-{name}-{}", std::process::id());
    let folder = std::env::temp_dir().join(unique);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn one_engine_at_a_time_is_in_charge() {
    let folder = folder("one");
    let old = Charge::open(&folder).unwrap();
    let new = Charge::open(&folder).unwrap();
    assert!(old.try_take().unwrap());
    assert!(!new.try_take().unwrap(), "the old one has it");
    old.give_up();
    assert!(new.try_take().unwrap());
    assert!(!old.try_take().unwrap(), "given up for good");
}

#[test]
fn the_charge_passes_on_when_its_holder_ends_without_a_word() {
    let folder = folder("end");
    let old = Charge::open(&folder).unwrap();
    assert!(old.try_take().unwrap());
    let waiting = Charge::open(&folder).unwrap();
    let waits = thread::spawn(move || waiting.take().map(|()| waiting));
    drop(old);
    let new = waits.join().unwrap().unwrap();
    let other = Charge::open(&folder).unwrap();
    assert!(!other.try_take().unwrap());
    drop(new);
    assert!(other.try_take().unwrap());
}

#[test]
fn the_supervisor_learns_why_an_engine_cannot_take_over() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let writer = std::os::fd::OwnedFd::from(writer);
    report_ready(File::from(writer), Some("no \"snapshot\"")).unwrap();
    let mut line = String::new();
    reader.read_to_string(&mut line).unwrap();
    assert_eq!(line, "{\"error\":\"no \\\"snapshot\\\"\"}\n");
}

#[test]
fn an_engine_that_nobody_waits_for_does_not_take_over() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let writer = std::os::fd::OwnedFd::from(writer);
    assert!(report_ready(File::from(writer), None).is_err());
}
