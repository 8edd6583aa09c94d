//! The keys of `rsync = { … }`.

use super::ValueType as T;
use super::{Argument, Key, keys};

/// The keys that change how data is sent and what is printed, but not what the target gets. A
/// change of them needs no comparison.
pub const ONLY_HOW: &[&str] = &[
    "bwlimit",
    "compress",
    "ipv4",
    "ipv6",
    "quiet",
    "temp_dir",
    "timeout",
    "verbose",
    "whole_file",
];

/// The keys of `rsync = { … }`. The arguments of a call have the order of the entries.
pub const RSYNC: &[Key] = keys! { options
    "binary": T::Text, "`rsync`", V2_2, Argument::None;
        "Program to run. A wrapper receives the list of lsyncd on standard input.";
    "archive": T::Switch, "off", V2_2, Argument::None;
        "`-a`: enables links, perms, times, group, owner, devices and special files where they are \
         not set.";
    "list": T::OneOf(&["auto", "filter", "files-from"]), "`\"auto\"`", V3, Argument::None;
        "How the names are passed to rsync, see [List modes](#list-modes).";
    "acls": T::Switch, "off", V2_2, Argument::Letter(b'A');
        "preserves ACLs.";
    "append": T::Switch, "off", V2_2, Argument::Long;
        "appends data to shorter files on the target.";
    "append_verify": T::Switch, "off", V2_2, Argument::Long;
        "as `append`, and verifies the old data.";
    "backup": T::Switch, "off", V2_2, Argument::Letter(b'b');
        "keeps a copy of each file that is replaced or deleted.";
    "backup_dir": T::Text, "", V2_2, Argument::Long;
        "directory for the copies of `backup`.";
    "bwlimit": T::Bandwidth, "", V2_2, Argument::Long;
        "bandwidth limit in KiB per second. A table sets the limit by time of day, see \
         [Bandwidth](#bandwidth).";
    "checksum": T::Switch, "off", V2_2, Argument::Letter(b'c');
        "compares contents instead of size and time.";
    "chmod": T::Text, "", V2_2, Argument::Long;
        "changes of the modes, such as `\"D755,F644\"`.";
    "chown": T::Text, "", V2_2, Argument::Long;
        "owner and group on the target, as `USER:GROUP`.";
    "compress": T::Switch, "off", V2_2, Argument::Letter(b'z');
        "compresses data during the transfer.";
    "copy_dirlinks": T::Switch, "off", V2_2, Argument::Letter(b'k');
        "follows symlinks to directories.";
    "copy_links": T::Switch, "off", V2_2, Argument::Letter(b'L');
        "follows all symlinks.";
    "copy_unsafe_links": T::Switch, "off", V2_3, Argument::Long;
        "follows symlinks that lead out of the source.";
    "cvs_exclude": T::Switch, "off", V2_2, Argument::Letter(b'C');
        "excludes files that CVS ignores.";
    "delete_excluded": T::Switch, "off", V2_3, Argument::None;
        "`--delete-excluded`: deletes excluded files on the target, in full comparisons. With rsync it implies `--delete` there, whatever `delete` says.";
    "dry_run": T::Switch, "off", V2_2, Argument::Letter(b'n');
        "transfers and deletes nothing.";
    "executability": T::Switch, "off", V2_2, Argument::Letter(b'E');
        "preserves the permission to execute.";
    "groupmap": T::Text, "", V2_2, Argument::Long;
        "map of groups to those of the target.";
    "existing": T::Switch, "off", V2_2, Argument::Long;
        "creates no files on the target.";
    "group": T::Switch, "off", V2_2, Argument::Letter(b'g');
        "preserves the group.";
    "hard_links": T::Switch, "off", V2_2, Argument::Letter(b'H');
        "preserves hard links. rsync can deadlock with this option; `settings{ stallTimeout }` \
         ends such a transfer, see [faults.md](faults.md#transfers-that-stand-still).";
    "ignore_times": T::Switch, "off", V2_2, Argument::Letter(b'I');
        "also transfers files of equal size and time.";
    "inc_recursive": T::Switch, "depends on the source", V3, Argument::None;
        "Full comparisons are incremental. `false` adds `--no-inc-recursive`.";
    "inplace": T::Switch, "off", V2_2, Argument::Long;
        "writes into the existing file.";
    "ipv4": T::Switch, "off", V2_2, Argument::Letter(b'4');
        "connects by IPv4.";
    "ipv6": T::Switch, "off", V2_2, Argument::Letter(b'6');
        "connects by IPv6.";
    "keep_dirlinks": T::Switch, "off", V2_2, Argument::Letter(b'K');
        "treats a symlink to a directory on the target as the directory.";
    "links": T::Switch, "on", V2_2, Argument::Letter(b'l');
        "preserves symlinks.";
    "omit_dir_times": T::Switch, "off", V2_2, Argument::Letter(b'O');
        "does not set the times of directories.";
    "omit_link_times": T::Switch, "off", V2_2, Argument::Letter(b'J');
        "does not set the times of symlinks.";
    "one_file_system": T::Switch, "off", V2_2, Argument::Letter(b'x');
        "does not enter other file systems.";
    "owner": T::Switch, "off", V2_2, Argument::Letter(b'o');
        "preserves the owner.";
    "password_file": T::Text, "", V2_2, Argument::Long;
        "file with the password for an rsync daemon.";
    "perms": T::Switch, "off", V2_2, Argument::Letter(b'p');
        "preserves the modes.";
    "protect_args": T::Switch, "on", V2_2, Argument::Letter(b's');
        "protects names from the shell of the target host.";
    "prune_empty_dirs": T::Switch, "off", V2_2, Argument::Letter(b'm');
        "transfers no empty directories.";
    "quiet": T::Switch, "off", V2_2, Argument::Letter(b'q');
        "prints errors only.";
    "rsh": T::Text, "", V2_2, Argument::Long;
        "remote shell, such as `\"/usr/bin/ssh -p 2222\"`.";
    "rsync_path": T::Text, "", V2_2, Argument::Long;
        "rsync on the target host, such as `\"sudo rsync\"`.";
    "sparse": T::Switch, "off", V2_2, Argument::Letter(b'S');
        "writes sequences of zero bytes as holes.";
    "suffix": T::Text, "", V2_2, Argument::Long;
        "suffix of the copies of `backup`.";
    "temp_dir": T::Text, "", V2_2, Argument::Long;
        "directory for incomplete files on the target.";
    "timeout": T::Number, "", V2_2, Argument::Long;
        "seconds without I/O after which rsync exits.";
    "times": T::Switch, "on", V2_2, Argument::Letter(b't');
        "preserves modification times.";
    "update": T::Switch, "off", V2_2, Argument::Letter(b'u');
        "skips files that are newer on the target.";
    "usermap": T::Text, "", V2_2, Argument::Long;
        "map of users to those of the target.";
    "verbose": T::Switch, "off", V2_2, Argument::Letter(b'v');
        "prints names.";
    "whole_file": T::Switch, "off", V2_2, Argument::Letter(b'W');
        "transfers whole files instead of differences.";
    "xattrs": T::Switch, "off", V2_2, Argument::Letter(b'X');
        "preserves extended attributes.";
    "_extra": T::Words, "", V2_2, Argument::None;
        "Any other options, one word each. Quotes are not needed: `\"--rsync-path=sudo rsync\"` is \
         one word.";
};
