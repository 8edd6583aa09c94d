//! The only unsafe code: system calls that nix, mio and the standard library do not wrap.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;

/// Removes the watch `wd` from an inotify instance (inotify_rm_watch(2)).
///
/// The inotify crate removes watches by its 16 byte descriptor only; the tree of
/// directories keeps the kernel's plain number.
///
/// # Errors
/// `EINVAL` when the kernel has dropped the watch already.
pub fn inotify_rm_watch(fd: BorrowedFd<'_>, wd: i32) -> io::Result<()> {
    // SAFETY: both arguments are plain integers and the descriptor is borrowed, so open.
    match unsafe { libc::inotify_rm_watch(fd.as_raw_fd(), wd) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns the number of readable bytes (`FIONREAD`, inotify(7)).
///
/// # Errors
///
/// None for an inotify instance.
pub fn readable(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed, so open, and FIONREAD writes one int.
    match unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &mut bytes) } {
        0 => Ok(usize::try_from(bytes).unwrap_or(0)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// fcntl(2): sets the signal of a lease break. Not in the libc crate.
const F_SETSIG: libc::c_int = 10;

/// Returns true if any process has this file open for writing. The descriptor must be read-only.
///
/// Takes and releases a read lease (fcntl(2)). A writer that opens the file in between causes a
/// signal that is ignored by default.
///
/// # Errors
/// `EACCES` for the files of others without CAP_LEASE, `EINVAL` where there are no leases.
pub fn is_open_for_writing(file: BorrowedFd<'_>) -> io::Result<bool> {
    let fd = file.as_raw_fd();
    // SAFETY: the descriptor is borrowed, so open, and the arguments are plain integers.
    let taken = unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG) == 0
            && libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0
    };
    if !taken {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EAGAIN) => Ok(true),
            _ => Err(error),
        };
    }
    // SAFETY: as above.
    match unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) } {
        0 => Ok(false),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns the offset of local time from UTC in seconds, at `seconds` since the epoch.
pub fn utc_offset(seconds: i64) -> i64 {
    // SAFETY: `tm` is plain data for which all zeroes is a value; localtime_r fills it or fails.
    unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        let time: libc::time_t = seconds;
        if libc::localtime_r(&time, &mut tm).is_null() {
            return 0;
        }
        tm.tm_gmtoff
    }
}

/// Returns device and inode of an open descriptor (fstat(2)).
///
/// # Errors
///
/// `EBADF` if it is not open.
pub fn descriptor_identity(fd: RawFd) -> io::Result<(u64, u64)> {
    // SAFETY: `stat` is plain data for which all zeroes is a value; fstat fills it or fails.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        match libc::fstat(fd, &mut stat) {
            0 => Ok((stat.st_dev, stat.st_ino)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Closes a descriptor that user code opened and handed over by its number.
pub fn close_descriptor(fd: RawFd) {
    // SAFETY: nothing here owns the descriptor; whether it is open is known to be unsure.
    unsafe {
        libc::close(fd);
    }
}

/// Sets close-on-exec on all descriptors except the standard ones.
pub fn close_all_on_exec() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: the call takes three integers; it changes a flag of descriptors, which none of
    // their owners relies on.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if marked == 0 {
        return;
    }
    // Before Linux 5.11.
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers = open
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for fd in numbers.filter(|&fd: &RawFd| fd > 2) {
        // SAFETY: as above; the error for a descriptor that is closed by now is ignored.
        unsafe {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
    }
}

/// Formats `seconds` since the epoch as local time with a strftime(3) `format`.
pub fn local_time(seconds: i64, format: &CStr) -> String {
    let mut buffer = [0u8; 128];
    // SAFETY: `tm` is plain data for which all zeroes is a value; localtime_r fills it, and
    // strftime writes at most `buffer.len()` bytes and returns how many it wrote.
    let length = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        let time: libc::time_t = seconds;
        if libc::localtime_r(&time, &mut tm).is_null() {
            return String::new();
        }
        libc::strftime(
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            format.as_ptr(),
            &tm,
        )
    };
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// Opens the connection to syslog(3) with this tag and facility (`libc::LOG_*`).
///
/// The C library keeps the pointer to the tag, so the tag stays allocated for good.
pub fn syslog_open(ident: &str, facility: i32) {
    let ident = CString::new(ident.replace('\0', " ")).unwrap_or_default();
    // SAFETY: the leaked string lives as long as the process, as openlog(3) demands.
    unsafe { libc::openlog(ident.into_raw(), 0, facility) }
}

/// Sends one message to syslog(3) with this priority (`libc::LOG_*` level).
pub fn syslog(priority: i32, text: &str) {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: the format is constant and takes exactly the one string given.
    unsafe { libc::syslog(priority, c"%s".as_ptr(), text.as_ptr()) }
}

/// The result of [`fork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The calling process.
    Parent,
    /// The new process.
    Child,
}

/// Creates a process (fork(2)). Must be called before any thread is started.
///
/// # Errors
///
/// Those of fork(2), such as `EAGAIN`.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: called before any thread is started, so the child may continue normally.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        _ => Ok(Fork::Parent),
    }
}

/// Makes a command's process get `SIGTERM` when the thread that started it ends (PR_SET_PDEATHSIG
/// in prctl(2)).
pub fn end_with_parent(command: &mut std::process::Command) {
    // SAFETY: between fork and exec only prctl is called, which is a plain system call; the
    // arguments it takes are integers.
    unsafe {
        command.pre_exec(
            || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            },
        );
    }
}

/// Makes a command's process start in a session of its own (setsid(2)), which has no terminal.
pub fn begin_without_terminal(command: &mut std::process::Command) {
    // SAFETY: between fork and exec only setsid is called, a plain system call without arguments;
    // reading errno touches no memory but the thread's own.
    unsafe {
        command.pre_exec(|| match libc::setsid() {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
}

/// Makes a command's process start with this niceness (setpriority(2)) and I/O priority
/// (ioprio_set(2)). A priority that the system refuses is not changed.
pub fn begin_with_priority(
    command: &mut std::process::Command,
    nice: Option<i32>,
    io: Option<i32>,
) {
    let give = move || {
        if let Some(nice) = nice {
            // SAFETY: a plain system call of integers.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
        }
        if let Some(io) = io {
            let _ = set_io_priority(0, io);
        }
        Ok(())
    };
    // SAFETY: between fork and exec only these two system calls are made; reading errno, as
    // the second does, touches no memory but the thread's own.
    unsafe {
        command.pre_exec(give);
    }
}

/// Returns a Lua state with all standard libraries, including `debug` and C modules, as in lsyncd.
pub fn lua() -> mlua::Lua {
    // SAFETY: the configuration is trusted like the program itself: it says which programs run.
    unsafe { mlua::Lua::unsafe_new() }
}

/// Sets the I/O priority of a process or thread (ioprio_set(2)); 0 is the calling thread.
///
/// # Errors
///
/// `EPERM` for a class reserved for root, `ESRCH` if the process has ended.
pub fn set_io_priority(id: u32, priority: i32) -> io::Result<()> {
    const PROCESS: libc::c_int = 1;
    let id = id as libc::c_long;
    // SAFETY: the call takes three integers and touches no memory.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, id, priority) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Opens a fanotify instance (fanotify_init(2)).
///
/// # Errors
///
/// `EPERM` without CAP_SYS_ADMIN, `EINVAL` for flags that this kernel does not know, `EMFILE`.
pub fn fanotify_init(flags: libc::c_uint) -> io::Result<OwnedFd> {
    // SAFETY: both arguments are plain integers; a result that is not negative is a descriptor
    // that nobody else owns.
    unsafe {
        match libc::fanotify_init(flags, (libc::O_RDONLY | libc::O_CLOEXEC) as libc::c_uint) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Changes the mark of the file system of an open directory (fanotify_mark(2)).
///
/// # Errors
///
/// Those of fanotify_mark(2), such as `EXDEV` for a subvolume of btrfs, and `ENOENT` if a mark that
/// does not exist is to be removed.
pub fn fanotify_mark(
    fanotify: BorrowedFd<'_>,
    flags: libc::c_uint,
    mask: u64,
    directory: BorrowedFd<'_>,
) -> io::Result<()> {
    let (fanotify, directory) = (fanotify.as_raw_fd(), directory.as_raw_fd());
    // SAFETY: the descriptors are borrowed, so open; without a path the directory itself is meant.
    match unsafe { libc::fanotify_mark(fanotify, flags, mask, directory, std::ptr::null()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The maximum size of a file handle (MAX_HANDLE_SZ).
pub const MAX_HANDLE_BYTES: usize = 128;

/// `struct file_handle` with room for the largest one.
#[repr(C)]
struct FileHandle {
    length: libc::c_uint,
    kind: libc::c_int,
    bytes: [u8; MAX_HANDLE_BYTES],
}

/// Returns type and bytes of the handle of an open file or directory, and the number of the mount
/// (name_to_handle_at(2)).
///
/// # Errors
///
/// `EOPNOTSUPP` if the file system has no handles.
pub fn handle_of(file: BorrowedFd<'_>) -> io::Result<(i32, Vec<u8>, i32)> {
    let mut handle = FileHandle {
        length: MAX_HANDLE_BYTES as libc::c_uint,
        kind: 0,
        bytes: [0; MAX_HANDLE_BYTES],
    };
    let mut mount = 0;
    let pointer = (&raw mut handle).cast::<libc::file_handle>();
    // SAFETY: the descriptor is borrowed, so open; the path is an empty string, and the handle
    // has room for as many bytes as its length says.
    let result = unsafe {
        let fd = file.as_raw_fd();
        libc::name_to_handle_at(fd, c"".as_ptr(), pointer, &mut mount, libc::AT_EMPTY_PATH)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let length = (handle.length as usize).min(MAX_HANDLE_BYTES);
    Ok((handle.kind, handle.bytes[..length].to_vec(), mount))
}

/// Opens a directory by its handle (open_by_handle_at(2)), as `O_PATH`. `mount` is any open
/// directory of the mount.
///
/// # Errors
///
/// `ESTALE` if the directory is gone, `EPERM` without CAP_DAC_READ_SEARCH.
pub fn open_directory_by_handle(
    mount: BorrowedFd<'_>,
    kind: i32,
    bytes: &[u8],
) -> io::Result<OwnedFd> {
    let mut handle = FileHandle {
        length: bytes.len() as libc::c_uint,
        kind,
        bytes: [0; MAX_HANDLE_BYTES],
    };
    let Some(room) = handle.bytes.get_mut(..bytes.len()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    room.copy_from_slice(bytes);
    let pointer = (&raw mut handle).cast::<libc::file_handle>();
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the descriptor is borrowed, so open; the handle has as many bytes as its length
    // says. A result that is not negative is a descriptor that nobody else owns.
    unsafe {
        match libc::open_by_handle_at(mount.as_raw_fd(), pointer, flags) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}
