//! That what was appended is in the files, whatever happened next.

use super::*;

fn folder(name: &str) -> PathBuf {
    let unique = format!("vedette-spool-{name}-{}", std::process::id());
    let folder = std::env::temp_dir().join(unique);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn lines(folder: &Path) -> usize {
    let files = fs::read_dir(folder).unwrap();
    let count = |path: PathBuf| {
        fs::read(path)
            .unwrap()
            .iter()
            .filter(|b| **b == b'\n')
            .count()
    };
    files.map(|entry| count(entry.unwrap().path())).sum()
}

/// The preparer works on a thread of its own: wait until it has caught up.
fn wait_for_room(spool: &mut Spool) {
    for _ in 0..10_000 {
        if spool.has_room() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("no room after ten seconds");
}

#[test]
fn every_record_is_kept_across_files() {
    let folder = folder("across");
    let mut spool = Spool::open(&folder, "w").unwrap();
    let line = [vec![b'x'; 99_999], vec![b'\n']].concat();
    for _ in 0..100 {
        wait_for_room(&mut spool);
        spool.append(&line);
    }
    assert_eq!(spool.dropped(), 0);
    assert_eq!(lines(&folder), 100);
    drop(spool);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_record_is_in_the_file_before_the_spool_is_closed() {
    let folder = folder("before");
    let mut spool = Spool::open(&folder, "w").unwrap();
    wait_for_room(&mut spool);
    spool.append(b"{}\n");
    assert_eq!(lines(&folder), 1);
    // As `kill -9` leaves the files: as they are, written to by nobody. The next engine tidies up.
    let left = self::folder("left");
    for entry in fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), left.join(entry.file_name())).unwrap();
    }
    tidy(&left).unwrap();
    let kept = fs::read_dir(&left)
        .unwrap()
        .map(|it| it.unwrap().metadata().unwrap().len());
    assert_eq!(kept.sum::<u64>(), 3);
    drop(spool);
    fs::remove_dir_all(folder).unwrap();
    fs::remove_dir_all(left).unwrap();
}

#[test]
fn without_a_place_to_write_there_is_no_room() {
    let folder = folder("none").join("missing");
    let mut spool = Spool::open(&folder, "w").unwrap();
    assert!(!spool.has_room());
    spool.append(b"{}\n");
    assert_eq!(spool.dropped(), 1);
}

#[test]
fn a_file_that_another_engine_still_writes_to_is_left_alone() {
    let folder = folder("shared");
    let mut spool = Spool::open(&folder, "old").unwrap();
    wait_for_room(&mut spool);
    spool.append(b"{\"one\":1}\n");
    tidy(&folder).unwrap();
    spool.append(b"{\"two\":2}\n"); // a fault, had the file been cut under its mapping
    assert_eq!(lines(&folder), 2);
    drop(spool);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_file_has_its_name_only_when_it_is_locked_and_has_its_blocks() {
    let folder = folder("named");
    let (unnamed, path) = (folder.join("w-1.new"), folder.join("w-1.jsonl"));
    let is_locked = |path: &Path| File::open(path).unwrap().try_lock().is_err();
    let segment = Segment::unnamed(&unnamed).unwrap();
    assert!(!path.exists());
    assert!(is_locked(&unnamed));
    assert_eq!(unnamed.metadata().unwrap().len(), SEGMENT);
    let segment = segment.name(&unnamed, &path).unwrap();
    assert!(!unnamed.exists());
    assert!(is_locked(&path));
    assert_eq!(path.metadata().unwrap().len(), SEGMENT);
    drop(segment);
    assert!(!is_locked(&path));
    // What has records stays, whoever wants its name.
    fs::write(&path, "{}\n").unwrap();
    let again = Segment::create(&path).map(|_| ()).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"{}\n");
    assert!(!unnamed.exists());
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_file_that_was_not_ready_when_its_engine_was_killed_is_removed() {
    let folder = folder("unready");
    let left = folder.join("killed-1.new");
    fs::write(&left, [0; 9]).unwrap();
    let used = Segment::unnamed(&folder.join("alive-1.new")).unwrap();
    tidy(&folder).unwrap();
    assert!(!left.exists());
    assert!(folder.join("alive-1.new").exists());
    drop(used);
    fs::remove_dir_all(&folder).unwrap();
}
