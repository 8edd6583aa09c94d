//! Mirrors over a real sshd on the loopback interface.

use std::ffi::OsStr;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use nix::unistd::{User, geteuid};

use crate::support::daemon::Daemon;
use crate::support::dir::{Dir, poll, program, skip};

/// A usual configuration; only the directories and the host are replaced.
const CONFIG: &str = r#"
settings {
    logfile    = "/var/log/lsyncd/lsyncd.log",
    statusFile = "/var/log/lsyncd/lsyncd.status",
    statusInterval = 20
}

sync {
    default.rsync,
    source = "/data/www",   -- 需要同步的目录
    target = "user@target_host:/data/www",
    rsync = {
        archive  = true,    -- 保留权限、时间戳等
        compress = true,    -- 压缩传输
        verbose  = true,
        _extra   = {"--bwlimit=5000"} -- 限速，单位KB/s，可选
    },
    delay = 5  -- 延迟合并事件，减少频繁调用
}
"#;

/// The table of users of an sshd whose host has no user for it.
const USERS: &str = "ssh/passwd";

/// An sshd with all its state in the work directory.
pub struct Sshd {
    child: Child,
    pub port: u16,
    /// The command that rsync runs instead of `ssh`.
    pub rsh: String,
}

impl Sshd {
    /// Starts sshd. Returns `None` and counts a skipped test if that is not possible.
    pub fn start(dir: &Dir) -> Option<Self> {
        let (Some(sshd), Some(keygen), Some(_)) =
            (program("sshd"), program("ssh-keygen"), program("ssh"))
        else {
            skip("sshd, ssh-keygen or ssh is not installed");
            return None;
        };
        let home = dir.path("ssh");
        fs::create_dir(&home).unwrap();
        // The account that logs in needs access to the directory and its parent.
        for path in [dir.root(), home.as_path()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o711)).unwrap();
        }
        for key in ["host_key", "id"] {
            let made = Command::new(&keygen)
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(home.join(key))
                .status()
                .unwrap();
            assert!(made.success());
        }
        fs::copy(home.join("id.pub"), home.join("authorized_keys")).unwrap();
        if !Self::prepare(dir) {
            skip("sshd has no user of its own, and none can be given to it");
            return None;
        }
        // A free port may be taken before sshd binds it, so several ports are tried.
        let sshd = (0..5)
            .find_map(|_| {
                let port = TcpListener::bind(("127.0.0.1", 0))
                    .and_then(|listener| listener.local_addr())
                    .unwrap()
                    .port();
                Self::listen(dir, &sshd, port)
            })
            .unwrap_or_else(|| panic!("sshd does not start: {}", dir.text("ssh/log")));

        let words: Vec<&str> = sshd.rsh.split(' ').collect();
        let login = Command::new(words[0])
            .args(&words[1..])
            .args(["-o", "ConnectTimeout=60"])
            .arg(format!("{}@127.0.0.1", account().name))
            .arg("true")
            .output()
            .unwrap();
        if login.status.success() {
            return Some(sshd);
        }
        let why = String::from_utf8_lossy(&login.stderr);
        assert!(!geteuid().is_root(), "{why}{}", dir.text("ssh/log"));
        skip(&format!(
            "this account cannot log in to itself: {}",
            why.trim()
        ));
        None
    }

    /// Makes the empty directory and the user that sshd of root needs for its unprivileged process.
    /// If this host has no such user, sshd gets its own table of users. Returns false if that is
    /// not possible.
    fn prepare(dir: &Dir) -> bool {
        if !geteuid().is_root() {
            return true;
        }
        fs::create_dir_all("/run/sshd").unwrap();
        if User::from_name("sshd").is_ok_and(|user| user.is_some()) {
            return true;
        }
        let mut users = fs::read("/etc/passwd").unwrap();
        users.extend(b"sshd:x:65533:65533::/run/sshd:/usr/sbin/nologin\n");
        dir.put(USERS, users);
        Self::in_namespace(dir, "true")
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Returns the command that starts a program with the table of users in `USERS`, if there is one.
    fn in_namespace(dir: &Dir, program: impl AsRef<OsStr>) -> Command {
        let users = dir.path(USERS);
        if !users.exists() {
            return Command::new(program);
        }
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-ec"])
            .arg("mount --bind \"$0\" /etc/passwd; exec \"$@\"")
            .arg(users)
            .arg(program);
        command
    }

    fn listen(dir: &Dir, sshd: &std::path::Path, port: u16) -> Option<Self> {
        let config = format!(
            "Port {port}
ListenAddress 127.0.0.1
HostKey @DIR@/ssh/host_key
PidFile none
AuthorizedKeysFile @DIR@/ssh/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
"
        );
        let config = dir.put("ssh/config", dir.expand(&config));
        let mut child = Self::in_namespace(dir, sshd)
            .args(["-D", "-e", "-f"])
            .arg(config)
            .stdin(Stdio::null())
            .stderr(fs::File::create(dir.path("ssh/log")).unwrap())
            .spawn()
            .unwrap();
        let mut up = false;
        poll(|| {
            up = TcpStream::connect(("127.0.0.1", port)).is_ok();
            up || child.try_wait().unwrap().is_some()
        });
        // Another program may have taken the port.
        if !up || child.try_wait().unwrap().is_some() {
            return None;
        }
        let key = dir.text("ssh/host_key.pub");
        dir.put("ssh/known_hosts", format!("[127.0.0.1]:{port} {key}"));
        let rsh = format!(
            "ssh -F none -p {port} -i @DIR@/ssh/id -o IdentitiesOnly=yes \
             -o UserKnownHostsFile=@DIR@/ssh/known_hosts -o BatchMode=yes \
             -o StrictHostKeyChecking=yes"
        );
        Some(Sshd {
            child,
            port,
            rsh: dir.expand(&rsh),
        })
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the account of the tests, which logs in to itself.
pub fn account() -> User {
    User::from_uid(geteuid())
        .unwrap()
        .expect("this account has a name")
}

#[test]
fn the_usual_configuration_mirrors_to_another_host() {
    let dir = Dir::new();
    let Some(sshd) = Sshd::start(&dir) else {
        return;
    };
    let config = CONFIG
        .replace(
            "user@target_host:/data/www",
            &format!("{}@127.0.0.1:@TRG@", account().name),
        )
        .replace("/data/www", "@SRC@")
        .replace("/var/log/lsyncd", "@DIR@");
    dir.mkdir("css");
    dir.write("index.html", "<html>");
    dir.write("css/main.css", "body {}");
    fs::write(dir.trg("old.html"), "gone at the source").unwrap();

    let mut daemon = Daemon::new(&dir, &config)
        .env("RSYNC_RSH", &sshd.rsh)
        .start();
    daemon.wait_equal();

    dir.mkdir("图片/a");
    dir.write("图片/a/新 建.png", "created");
    dir.append("index.html", "<body>");
    dir.symlink("index.html", "default.html");
    dir.chmod("css/main.css", 0o600);
    daemon.wait_equal();

    dir.mv("css", "style");
    dir.mv("index.html", "home.html");
    dir.rm("default.html");
    dir.symlink("home.html", "default.html");
    dir.chmod("style", 0o750);
    daemon.wait_equal();

    dir.rm("图片");
    dir.write("style/main.css", "changed and longer");
    dir.mkdir("empty/directories");
    daemon.wait_equal();

    let log = dir.text("lsyncd.log");
    assert!(log.contains("finished."), "{log}");
    assert!(!log.contains("Error"), "{log}");
    assert!(
        dir.text("lsyncd.status")
            .starts_with("Lsyncd status report at ")
    );
    assert_eq!(daemon.terminate(), Some(143));
}

#[test]
fn rsyncssh_moves_on_the_target_host() {
    let dir = Dir::new();
    let Some(sshd) = Sshd::start(&dir) else {
        return;
    };
    let config = format!(
        r#"
sync{{
    default.rsyncssh, source = "@SRC@", host = "{user}@127.0.0.1", targetdir = "@TRG@", delay = 0.3,
    rsync = {{ archive = true }},
    ssh = {{
        port = {port}, identityFile = "@DIR@/ssh/id",
        options = {{
            IdentitiesOnly = "yes", UserKnownHostsFile = "@DIR@/ssh/known_hosts",
            BatchMode = "yes", StrictHostKeyChecking = "yes",
        }},
    }},
}}
"#,
        user = account().name,
        port = sshd.port
    );
    dir.mkdir("d");
    dir.write("d/it's a \"file\" $HOME", "1");
    let mut daemon = Daemon::new(&dir, &config).start();
    daemon.wait_equal();
    daemon.wait_log("finished");
    dir.mv("d", "moved; it's $PATH");
    daemon.wait_log("Moving ");
    daemon.wait_equal();
    dir.write("moved; it's $PATH/new", "1");
    dir.rm("moved; it's $PATH/it's a \"file\" $HOME");
    daemon.wait_equal();
}

/// Starts an rsync daemon with a writable module.
pub fn rsync_daemon(dir: &Dir) -> Option<(Started, u16)> {
    rsync_daemon_with(dir, "[x]")
}

/// Starts an rsync daemon whose module has these lines.
pub fn rsync_daemon_with(dir: &Dir, module: &str) -> Option<(Started, u16)> {
    let Some(rsync) = program("rsync") else {
        skip("rsync is not installed");
        return None;
    };
    let ids = if geteuid().is_root() {
        "uid = 0\ngid = 0\n"
    } else {
        ""
    };
    let module = format!("use chroot = no\n{ids}{module}\npath = @TRG@\nread only = no\n");
    let config = dir.put("rsyncd.conf", dir.expand(&module));
    // A free port may be taken before the daemon binds it, so several ports are tried.
    (0..5).find_map(|_| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let child = Command::new(&rsync)
            .args(["--daemon", "--no-detach", "--address=127.0.0.1"])
            .args([
                format!("--port={port}"),
                format!("--config={}", config.display()),
            ])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut daemon = Started(child);
        let mut up = false;
        poll(|| {
            up = TcpStream::connect(("127.0.0.1", port)).is_ok();
            up || daemon.0.try_wait().unwrap().is_some()
        });
        up.then_some((daemon, port))
    })
}

/// A program that ends with the test.
pub struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_pool_of_tunnels_leads_to_an_rsync_daemon() {
    let dir = Dir::new();
    let Some(sshd) = Sshd::start(&dir) else {
        return;
    };
    let Some((_daemon, port)) = rsync_daemon(&dir) else {
        return;
    };
    let config = format!(
        r#"
settings{{ insist = true }}
sync{{
    default.rsync, source = "@SRC@", target = "rsync://^localhost:^localport/x", delay = 0.2,
    rsync = {{ archive = true }},
    tunnel = tunnel{{
        mode = "pool", parallel = 2, readyDelay = 1, retryDelay = 0.3, localhost = "127.0.0.1",
        command = "{rsh} -o ExitOnForwardFailure=yes -N -L ^localport:127.0.0.1:{port} {user}@127.0.0.1",
    }},
}}
"#,
        rsh = sshd.rsh,
        user = account().name
    );
    // On a busy host the tunnels may take longer than `readyDelay`; `insist` repeats the startup.
    dir.mkdir("d");
    dir.write("d/f", "1");
    let mut daemon = Daemon::new(&dir, &config)
        .args(&["-log", "Tunnel", "-log", "Exec"])
        .start();
    daemon.wait_equal();
    dir.append("d/f", "2");
    dir.mv("d", "e");
    daemon.wait_equal();

    // Without tunnels the changes wait; they arrive through the next tunnels.
    let log = daemon.log();
    daemon.stop();
    for line in log.lines().filter(|line| line.contains("Exec: ssh ")) {
        let port = line
            .split("[-L] [")
            .nth(1)
            .and_then(|rest| rest.split(':').next());
        end_listener(port.unwrap_or_default());
    }
    dir.write("e/g", "3");
    daemon.cont();
    daemon.wait_log("Tunnel1: process");
    daemon.wait_equal();
    assert_eq!(daemon.terminate(), Some(143));
    daemon.wait_all_gone();
}

/// Ends the ssh whose command line forwards this port.
fn end_listener(port: &str) {
    let forward = format!("{port}:127.0.0.1:");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    for process in processes {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split(|&byte| byte == 0);
        if words.any(|word| word.starts_with(forward.as_bytes())) {
            let pid = process
                .file_name()
                .to_str()
                .and_then(|pid| pid.parse().ok());
            let pid = nix::unistd::Pid::from_raw(pid.unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
}
