//! The question and its answer, with the process played by a thread.

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncReadExt;

use super::*;

const WORKER: &str = "0123456789abcdef.sock";

/// A dialler for sockets in a folder of its own, gone with this.
struct Bench {
    folder: PathBuf,
    dialler: Arc<Dialler>,
}

impl Bench {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let name = format!(
            "vedette-dialler-{}-{number}-{}",
            std::process::id(),
            "x".repeat(100)
        );
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (socket, other) = socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
        let served = folder.clone();
        std::thread::spawn(move || serve(&other, &served));
        let dialler = Dialler::asking(socket).unwrap();
        Self { folder, dialler }
    }

    /// The path is longer than that of a socket may be: from within the folder it is not.
    fn listen(&self) -> UnixListener {
        let folder = std::fs::File::open(&self.folder).unwrap();
        UnixListener::bind(format!("/proc/self/fd/{}/{WORKER}", folder.as_raw_fd())).unwrap()
    }

    async fn dial(&self, name: &str) -> io::Result<Quiet> {
        self.dialler.dial(&self.folder.join(name)).await
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

#[tokio::test]
async fn a_connection_is_handed_over_whole() {
    let bench = Bench::new();
    let listener = bench.listen();
    for _ in 0..3 {
        let mut stream = bench.dial(WORKER).await.unwrap();
        let (mut other, _) = listener.accept().unwrap();
        other.write_all(b"hello").unwrap();
        let mut read = [0; 5];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"hello");
    }
}

#[tokio::test]
async fn nobody_who_listens_is_an_error_and_the_next_question_is_answered() {
    let bench = Bench::new();
    let missing = bench.dial(WORKER).await.unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    drop(bench.listen());
    let refused = bench.dial(WORKER).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    std::fs::remove_file(bench.folder.join(WORKER)).unwrap();
    let _listener = bench.listen();
    assert!(bench.dial(WORKER).await.is_ok());
}

#[tokio::test]
async fn only_names_of_sockets_of_models_are_asked_for() {
    let bench = Bench::new();
    for name in ["admin.sock", "0123456789abcdef", "0123456789abcdef0.sock"] {
        let refused = bench.dial(name).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{name}");
    }
    // The process itself takes no other name either.
    let refused = bench.dial("0123456789ABCDEF.sock").await.unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
    assert!(name(b"../../admin.sock").is_none() && name(b"0123456789abcdeF").is_none());
}

#[tokio::test]
async fn a_full_queue_is_not_waited_for() {
    let bench = Bench::new();
    let listener = bench.listen();
    rustix::net::listen(&listener, 1).unwrap();
    let mut waiting = Vec::new();
    let full = loop {
        match bench.dial(WORKER).await {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error,
        }
        assert!(waiting.len() < 10, "the queue has no end");
    };
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    drop(listener);
}

#[tokio::test]
async fn a_process_that_is_gone_is_an_error_and_one_that_is_late_is_not_mistaken() {
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    let (socket, other) = socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
    let dialler = Dialler::asking(socket).unwrap();
    let path = Path::new("/nowhere").join(WORKER);
    // An answer to a question from before comes first.
    let playing = std::thread::spawn(move || {
        let mut question = [0; QUESTION];
        recv(&other, &mut question, RecvFlags::empty()).unwrap();
        answer(&other, &7_u64.to_ne_bytes(), &Err(Errno::NOENT)).unwrap();
        answer(&other, &question[..8], &Err(Errno::CONNREFUSED)).unwrap();
    });
    let error = dialler.dial(&path).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    playing.join().unwrap();
    assert!(dialler.dial(&path).await.is_err());
    dialler.gone().await;
}
