//! Tests of the places and marks.

use super::*;

fn path_of(directory: &std::path::Path) -> Vec<u8> {
    [directory.as_os_str().as_bytes(), b"/"].concat()
}

fn places() -> Option<Places> {
    let places = Places::new(libc::FAN_CREATE | libc::FAN_ONDIR);
    places
        .inspect_err(|why| crate::test_skip::skip(&format!("fanotify cannot be used: {why}")))
        .ok()
}

/// Returns a place that does not exist.
fn unreal(path: &str) -> Place {
    Place {
        path: path.into(),
        system: [1; 8],
        handle: Vec::new(),
        is_root: true,
        device: 1,
        mount: i32::MAX,
        was_marked: false,
        open: None,
    }
}

#[test]
fn a_lack_of_resources_says_nothing_about_a_directory() {
    let missing = |number| Refusal::Missing(io::Error::from_raw_os_error(number));
    for number in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EINTR] {
        assert!(!missing(number).is_final());
    }
    for number in [libc::ENOENT, libc::ENOTDIR, libc::EACCES] {
        assert!(missing(number).is_final());
    }
    assert!(Refusal::Unsuitable("text".into()).is_final());
}

/// Another error would mean that the directory exists and cannot be read. That costs a full
/// comparison, or leaves a directory uncompared that has replaced it.
#[test]
fn a_directory_that_is_being_deleted_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let top = std::fs::File::open(directory.path()).unwrap();
    let other_errors = |name: &str| {
        let path = directory.path().join(name);
        let mut errors = Vec::new();
        for _ in 0..1500 {
            std::fs::create_dir(&path).unwrap();
            let opened = std::fs::File::open(&path).unwrap();
            let handle = handle_of(opened.as_fd()).unwrap().0;
            drop(opened);
            std::fs::remove_dir(&path).unwrap();
            let number = open_directory(top.as_fd(), &handle).map_err(|error| error.raw_os_error());
            match number {
                Err(Some(libc::ESTALE)) => {}
                Err(Some(libc::EPERM)) => return Err("handles need CAP_DAC_READ_SEARCH"),
                other => errors.push(other.err()),
            }
        }
        Ok(errors)
    };
    let found: Vec<_> = thread::scope(|scope| {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let threads = names.map(|name| scope.spawn(|| other_errors(name)));
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for result in found {
        match result {
            Ok(errors) => assert_eq!(errors, []),
            Err(why) => return crate::test_skip::skip(why),
        }
    }
}

#[test]
fn a_mount_hides_the_directory_at_its_path() {
    let Some(mut places) = places() else {
        return;
    };
    places.list = ["/a/", "/a/b/", "/c/"].map(unreal).into();
    let hidden: [(usize, &[u8], bool); 6] = [
        (0, b"/a/", false),
        (0, b"/a/x/", false),
        (0, b"/a/b/", true),
        (0, b"/a/b/x/", true),
        (1, b"/a/b/x/", false),
        (2, b"/c/x/", false),
    ];
    for (at, path, is_hidden) in hidden {
        assert_eq!(places.is_hidden(at, path), is_hidden, "{at} {path:?}");
    }
    assert_eq!(places.at(b"/c/"), Some(2));
    assert_eq!(places.at(b"/c"), None);
    places.list.clear();
}

#[test]
fn the_number_of_a_file_system_has_its_lower_half_first() {
    let number = 0x0102_0304_0506_0708_u64;
    let halves = [0x0506_0708_u32, 0x0102_0304].map(u32::to_ne_bytes);
    assert_eq!(system_bytes(number), *halves.concat());
}

/// The mark of a file system is kept as long as there is a place on it.
#[test]
fn setting_the_places_tells_what_has_changed() {
    let Some(mut places) = places() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().canonicalize().unwrap();
    let names = ["a", "b"].map(|name| directory.join(name));
    names
        .iter()
        .for_each(|name| std::fs::create_dir_all(name).unwrap());
    let roots = names.each_ref().map(|name| path_of(name));
    let set = |places: &mut Places, roots: &[Vec<u8>]| {
        let changes = places.set(roots, &|_| true);
        (changes.refused.len(), changes.is_other, changes.remarked)
    };
    let first = set(&mut places, &roots);
    if first.0 > 0 {
        return crate::test_skip::skip("fanotify cannot be used here");
    }
    assert_eq!(first, (0, true, false));
    assert_eq!(set(&mut places, &roots), (0, false, false));
    assert_eq!(places.loss(0), None);
    let open = super::open(&roots[0]).unwrap();
    assert!(places.is_marked(open.as_fd()));
    assert_eq!(set(&mut places, &roots[1..]), (0, true, false));
    assert_eq!(places.list.len(), 1);
    assert!(places.is_marked(open.as_fd()));
    places.remove(0);
    assert!(!places.is_marked(open.as_fd()));
    assert_eq!(set(&mut places, &roots), (0, true, false));
    // The file system has lost its mark, as after an unmount.
    let before = std::mem::take(&mut places.list);
    places.unmark(&before);
    places.list = before;
    assert_eq!(places.loss(0), Some(Loss::Unmounted));
    assert_eq!(set(&mut places, &roots), (0, false, true));
    assert_eq!(places.loss(0), None);
    // Another directory, and none.
    std::fs::rename(&names[0], directory.join("c")).unwrap();
    std::fs::create_dir(&names[0]).unwrap();
    assert_eq!(places.loss(0), Some(Loss::Moved));
    assert!(places.get_mut(0).open().is_err());
    assert!(places.get_mut(1).open().is_ok());
    assert_eq!(set(&mut places, &roots), (0, true, false));
    std::fs::remove_dir(&names[0]).unwrap();
    assert_eq!(places.loss(0), Some(Loss::Deleted));
    assert_eq!(set(&mut places, &roots), (1, true, false));
    assert_eq!(places.list.len(), 1);
}

/// The trees of the other two roots are known.
#[test]
fn places_are_kept_if_their_tree_cannot_be_looked_at() {
    let Some(mut places) = places() else {
        return;
    };
    let paths = |list: &[Place]| -> Vec<String> {
        let path = |place: &Place| String::from_utf8(place.path.clone()).unwrap();
        list.iter().map(path).collect()
    };
    let missing = |number| Err(Refusal::Missing(io::Error::from_raw_os_error(number)));
    let mut before: Vec<_> = ["/a/", "/a/b/", "/ab/", "/c/"].map(unreal).into();
    places
        .add_tree(b"/c/", Ok(vec![unreal("/c/")]), &mut before)
        .unwrap();
    places
        .add_tree(b"/a/", missing(libc::EMFILE), &mut before)
        .unwrap();
    assert_eq!(paths(&places.list), ["/c/", "/a/", "/a/b/"]);
    assert_eq!(paths(&before), ["/ab/", "/c/"]);
    assert!(
        places
            .add_tree(b"/ab/", missing(libc::ENOENT), &mut before)
            .is_err()
    );
    let inner = vec![unreal("/a/b/"), unreal("/a/b/c/")];
    places.add_tree(b"/a/b/", Ok(inner), &mut before).unwrap();
    assert_eq!(paths(&places.list), ["/c/", "/a/", "/a/b/", "/a/b/c/"]);
    places.list.clear();
}

#[test]
fn another_file_system_with_the_same_number_is_refused() {
    let Some(mut places) = places() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let path = path_of(&directory.path().canonicalize().unwrap());
    let place = match places.examine(&path, true) {
        Ok(place) => place,
        Err(why) => return crate::test_skip::skip(&format!("fanotify cannot be used: {why:?}")),
    };
    places.list = vec![unreal("/elsewhere/")];
    assert!(places.examine(&path, true).is_ok());
    places.list[0].system = place.system;
    assert!(places.examine(&path, true).is_err());
    places.list[0].device = place.device;
    assert!(places.examine(&path, true).is_ok());
    places.list.clear();
}

/// What is at the path: nothing, or another directory, on the device of the place or another one.
#[test]
fn a_place_is_unmounted_if_its_mount_is_gone() {
    let Some(mut places) = places() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let path = path_of(&directory.path().canonicalize().unwrap());
    let (there, _) = Place::look(&path, true).unwrap();
    let gone = [&path, &b"gone/"[..]].concat();
    for (path, is_device, is_mounted, loss) in [
        (&gone, true, true, Loss::Deleted),
        (&gone, true, false, Loss::Unmounted),
        (&path, true, true, Loss::Moved),
        (&path, true, false, Loss::Moved),
        (&path, false, true, Loss::Moved),
        (&path, false, false, Loss::Unmounted),
    ] {
        let mut place = unreal("");
        place.path = path.clone();
        if is_device {
            place.device = there.device;
        }
        if is_mounted {
            place.mount = there.mount;
        }
        places.list = vec![place];
        let what = (path == &gone, is_device, is_mounted);
        assert_eq!(places.loss(0), Some(loss), "{what:?}");
    }
    places.list.clear();
}

/// It would keep the file system from being unmounted.
#[test]
fn a_place_is_closed_after_a_turn() {
    let Some(mut places) = places() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let path = path_of(&directory.path().canonicalize().unwrap());
    places.list = vec![Place::look(&path, true).unwrap().0];
    places.get_mut(0).open().unwrap();
    assert!(places.list[0].open.is_some());
    places.close();
    assert!(places.list[0].open.is_none());
    places.list.clear();
}
