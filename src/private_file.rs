//! Files for their owner alone, that are what they seem: a link that somebody has put in their place is
//! not followed, whatever the mask of the process is. And which file it is that was opened.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// Opens a file to write to it, as `options` say. One that is made is for its owner alone. A symbolic link,
/// or something else than a file, is an error: whoever can write to the directory may have put it there so
/// that another file is written over.
pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        // A pipe without a reader would be waited for.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.mode(0o600).custom_flags(i32::try_from(flags.bits()).map_err(io::Error::other)?);
    }
    let file = options.open(path).map_err(explained)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is there and no regular file; remove it"));
    }
    // Some masks shut out the owner as well, who could not open it again.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = metadata.permissions().mode();
        if mode & 0o600 != 0o600 {
            file.set_permissions(fs::Permissions::from_mode(mode & 0o7777 | 0o600))?;
        }
    }
    Ok(file)
}

/// Makes a file that takes the place of one that is there, without writing over that one, which may have
/// other names.
#[cfg(feature = "_durable")]
pub(crate) fn create_anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    open(path, OpenOptions::new().write(true).create_new(true))
}

/// Makes a directory for its owner alone, which the owner can use whatever the mask.
#[cfg(feature = "_durable")]
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::symlink_metadata(path)?.permissions().mode();
        if mode & 0o700 != 0o700 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        }
    }
    Ok(())
}

/// Makes a directory and those above it that are missing; answers with what was made, the highest first.
#[cfg(feature = "_durable")]
pub(crate) fn create_dirs(path: &Path) -> io::Result<Vec<&Path>> {
    let missing = path.ancestors().take_while(|at| !at.as_os_str().is_empty() && !at.is_dir());
    let mut missing: Vec<_> = missing.collect();
    missing.reverse();
    for dir in &missing {
        match create_dir(dir) {
            // Somebody was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            made => made?,
        }
    }
    Ok(missing)
}

/// An error when a path is a symbolic link; for files that others open.
#[cfg(feature = "sled")]
pub(crate) fn refuse_link(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_symlink() => Err(linked()),
        _ => Ok(()),
    }
}

fn linked() -> io::Error {
    io::Error::other(
        "it is a symbolic link, which is not followed: what it leads to could be written over; put the file \
         itself in its place, or make the directory the link",
    )
}

fn explained(error: io::Error) -> io::Error {
    #[cfg(unix)]
    if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return linked();
    }
    error
}

/// Which file or directory it is, as long as somebody has it open. It is never written down: it changes
/// when a volume is mounted again, or a backup restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

/// What lies under a path, compared with what was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum There {
    /// The same file; or that cannot be told.
    Same,
    /// Another one.
    Other,
    /// Nothing.
    Nothing,
}

impl FileId {
    /// That of an open file.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Self::new(&metadata))
    }

    /// That of what lies under a path.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::new(&metadata))
    }

    fn new(metadata: &fs::Metadata) -> Self {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            Self { device: metadata.dev(), inode: metadata.ino() }
        }
        // Elsewhere a file that is open cannot be removed.
        #[cfg(not(unix))]
        {
            let _ = metadata;
            Self { device: 0, inode: 0 }
        }
    }

    /// What others find under a path.
    pub(crate) fn compare(self, path: &Path) -> There {
        match Self::at(path) {
            Ok(there) if there == self => There::Same,
            Ok(_) => There::Other,
            Err(error) if is_absence(&error) => There::Nothing,
            Err(_) => There::Same,
        }
    }
}

/// Whether an error says that there is nothing.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::StaleNetworkFileHandle
    )
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn what_others_have_put_there_is_not_written_to() {
        let base = tempfile::tempdir().unwrap();
        let (victim, path) = (base.path().join("victim"), base.path().join("file"));
        fs::write(&victim, "mine").unwrap();
        let append = |path: &Path| open(path, OpenOptions::new().append(true).create(true));
        symlink(&victim, &path).unwrap();
        let error = append(&path).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        // One that leads nowhere would make a file where it leads to.
        fs::remove_file(&path).unwrap();
        symlink(base.path().join("new"), &path).unwrap();
        append(&path).unwrap_err();
        assert!(!base.path().join("new").exists());
        // What takes the place of a link or of another name of a file leaves that file as it is.
        for plant in [|a: &Path, b: &Path| symlink(a, b), |a: &Path, b: &Path| fs::hard_link(a, b)] {
            fs::remove_file(&path).unwrap();
            plant(&victim, &path).unwrap();
            io::Write::write_all(&mut create_anew(&path).unwrap(), b"ours").unwrap();
            assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
            assert_eq!(fs::read_to_string(&path).unwrap(), "ours");
        }
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        // Nobody is waited for.
        let pipe = base.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        open(&pipe, OpenOptions::new().write(true)).unwrap_err();
        open(&pipe, OpenOptions::new().read(true).write(true)).unwrap_err();
    }

    #[test]
    fn what_is_made_can_be_used_by_its_owner_and_by_nobody_else() {
        let base = tempfile::tempdir().unwrap();
        let deep = base.path().join("a/b/c");
        assert_eq!(create_dirs(&deep).unwrap().len(), 3);
        assert!(create_dirs(&deep).unwrap().is_empty());
        for dir in deep.ancestors().take(3) {
            assert_eq!(fs::metadata(dir).unwrap().mode() & 0o777, 0o700);
        }
        let path = deep.join("file");
        fs::write(&path, "shut").unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o200)).unwrap();
        open(&path, OpenOptions::new().append(true)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        create_dirs(&path.join("below")).unwrap_err();
        create_dirs(&path).unwrap_err();
    }

    #[test]
    fn another_file_of_the_name_is_another_file() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("file");
        let file = File::create(&path).unwrap();
        let id = FileId::of(&file).unwrap();
        assert_eq!(id.compare(&path), There::Same);
        fs::rename(&path, base.path().join("away")).unwrap();
        assert_eq!(id.compare(&path), There::Nothing);
        fs::write(&path, "").unwrap();
        assert_eq!(id.compare(&path), There::Other);
        fs::rename(base.path().join("away"), &path).unwrap();
        assert_eq!(id.compare(&path), There::Same);
        assert_eq!(id.compare(&path.join("below")), There::Nothing, "what is above is a file");
    }
}
