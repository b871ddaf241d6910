use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;

fn run<F: Future>(what: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let whole = async { timeout(Duration::from_secs(60), what).await.unwrap() };
    runtime.block_on(whole)
}

#[test]
fn more_than_there_is_room_for_comes_whole_and_in_order() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let sent: Vec<u8> = (0..8 << 20).map(|it: u32| it.to_le_bytes()[1]).collect();
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        got
    });
    run(async {
        let mut ours = Quiet::new(ours).unwrap();
        ours.write_all(&sent).await.unwrap();
        ours.shutdown().await.unwrap();
    });
    assert!(reader.join().unwrap() == sent);
}

#[test]
fn both_directions_go_on_at_once() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    run(async {
        let (ours, theirs) = (Quiet::new(ours).unwrap(), Quiet::new(theirs).unwrap());
        let much = vec![7; 3 << 20];
        let talk = |socket: Quiet| {
            let much = &much;
            async move {
                let (mut from, mut to) = tokio::io::split(socket);
                let mut got = vec![0; much.len()];
                let (read, written) = tokio::join!(from.read_exact(&mut got), to.write_all(much));
                read.unwrap();
                written.unwrap();
                assert!(got == *much);
            }
        };
        tokio::join!(talk(ours), talk(theirs));
    });
}

#[test]
fn the_end_of_the_other_side_is_read_as_the_end_also_after_bytes() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    run(async {
        let mut ours = Quiet::new(ours).unwrap();
        (&theirs).write_all(b"last").unwrap();
        drop(theirs);
        let mut got = Vec::new();
        ours.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"last");
    });
}

#[test]
fn a_reader_on_the_other_side_wakes_nobody() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    run(async {
        let mut ours = Quiet::new(ours).unwrap();
        ours.write_all(b"request").await.unwrap();
        // What epoll would tell of the socket now: with tokio's own, that there is room.
        let mut got = [0; 16];
        assert_eq!((&theirs).read(&mut got).unwrap(), 7);
        let interest = interests_of(ours.stream.get_ref().as_raw_fd());
        assert_eq!(interest & libc::EPOLLOUT as u32, 0);
        assert_ne!(interest & libc::EPOLLIN as u32, 0);
    });
}

/// What epoll was asked to tell of a descriptor (`proc_pid_fdinfo(5)`).
fn interests_of(descriptor: i32) -> u32 {
    let folder = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let texts = folder.filter_map(|it| std::fs::read_to_string(it.unwrap().path()).ok());
    let events = texts.flat_map(|text| {
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.into_iter().filter_map(move |line| {
            let mut words = line.split_whitespace();
            let is_it = words.next() == Some("tfd:") && words.next()?.parse() == Ok(descriptor);
            is_it
                .then(|| u32::from_str_radix(words.nth(1)?, 16).ok())
                .flatten()
        })
    });
    events.fold(0, |all, it| all | it)
}
