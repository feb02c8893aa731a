//! Reads what a deb says of itself: an ar archive of a version, the tar of the control files and the tar of the contents;
//! see deb(5). Whoever may upload packages writes it, so every size is bounded before anything is read.

use crate::steps::values::{InvalidValue, PackageRef};
use flate2::read::GzDecoder;
use std::io::{self, Read, Seek, SeekFrom};

const ARCHIVE: &[u8] = b"!<arch>\n";
const MAX_CONTROL_TAR_BYTES: u64 = 4 << 20;
const MAX_CONTROL_BYTES: u64 = 64 << 10;
/// Of a tar archive.
const BLOCK_BYTES: u64 = 512;

/// What is wrong with a deb.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    #[error("it is not an archive of Debian's kind")]
    NoArchive,
    #[error("its part {expected} is missing: {found:?} stands there")]
    Member { expected: &'static str, found: String },
    #[error("its size is not what its parts say")]
    Size,
    #[error("it holds no readable control file")]
    NoControl,
    #[error("its control file has no field {0}")]
    Field(&'static str),
    #[error(transparent)]
    Package(#[from] InvalidValue),
}

/// The control file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    pub package: PackageRef,
    pub installed_bytes: u64,
}

/// Reads a whole file. Blocks. Of the compressions only gzip, which every dpkg knows.
pub fn read(file: &mut (impl Read + Seek)) -> Result<Control, DebError> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let mut magic = [0; 8];
    file.read_exact(&mut magic).map_err(|_| DebError::NoArchive)?;
    if magic != ARCHIVE {
        return Err(DebError::NoArchive);
    }
    let version = member(file, "debian-binary")?;
    skip(file, version)?;
    let control = member(file, "control.tar.gz")?;
    let text = control_file(&mut GzDecoder::new((&mut *file).take(control)).take(MAX_CONTROL_TAR_BYTES))?;
    // The decoder need not have read its part to the end.
    let control_start = (ARCHIVE.len() as u64) + HEADER_BYTES + padded(version) + HEADER_BYTES;
    file.seek(SeekFrom::Start(control_start.saturating_add(padded(control))))?;
    let data = member(file, "data.tar")?;
    let end = file.stream_position()?.saturating_add(data);
    if length != end && length != end.saturating_add(data % 2) {
        return Err(DebError::Size);
    }
    parse(&text)
}

const HEADER_BYTES: u64 = 60;

/// Parts begin at even offsets.
fn padded(size: u64) -> u64 {
    size.saturating_add(size % 2)
}

fn skip(file: &mut impl Seek, size: u64) -> Result<(), DebError> {
    let size = i64::try_from(padded(size)).map_err(|_| DebError::Size)?;
    file.seek(SeekFrom::Current(size))?;
    Ok(())
}

/// Reads the header of the next part, whose name begins so, and answers its size.
fn member(file: &mut impl Read, expected: &'static str) -> Result<u64, DebError> {
    let mut header = [0; HEADER_BYTES as usize];
    file.read_exact(&mut header).map_err(|_| DebError::Size)?;
    let field = |from: usize, to: usize| String::from_utf8_lossy(header.get(from..to).unwrap_or_default()).into_owned();
    let name = field(0, 16);
    if !name.starts_with(expected) {
        return Err(DebError::Member { expected, found: name.trim_end().into() });
    }
    let size = field(48, 58).trim_end().parse::<u64>().map_err(|_| DebError::Size)?;
    if size > 1 << 40 { Err(DebError::Size) } else { Ok(size) }
}

/// The file `control` of a tar archive.
fn control_file(tar: &mut impl Read) -> Result<String, DebError> {
    let mut header = [0; BLOCK_BYTES as usize];
    loop {
        tar.read_exact(&mut header).map_err(|_| DebError::NoControl)?;
        let text = |from: usize, to: usize| {
            let field = header.get(from..to).unwrap_or_default();
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(field.get(..end).unwrap_or_default()).trim().to_owned()
        };
        let size = u64::from_str_radix(&text(124, 136), 8).map_err(|_| DebError::NoControl)?;
        if text(0, 100).trim_start_matches("./") == "control" {
            if size > MAX_CONTROL_BYTES {
                return Err(DebError::NoControl);
            }
            let mut control = String::new();
            (&mut *tar).take(size).read_to_string(&mut control).map_err(|_| DebError::NoControl)?;
            return Ok(control);
        }
        let blocks = size.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
        io::copy(&mut (&mut *tar).take(blocks), &mut io::sink()).map_err(|_| DebError::NoControl)?;
    }
}

fn parse(control: &str) -> Result<Control, DebError> {
    // Lines that begin with a blank go on with the field before them.
    let field = |name: &'static str| {
        let value = control.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(str::trim).ok_or(DebError::Field(name))
    };
    let package = PackageRef::deb(field("Package")?, field("Version")?, field("Architecture")?)?;
    // In KiB, and not every package tells.
    let kibibytes = field("Installed-Size").ok().and_then(|size| size.parse::<u64>().ok()).unwrap_or(0);
    Ok(Control { package, installed_bytes: kibibytes.saturating_mul(1024) })
}

/// Builds debs for tests.
#[cfg(test)]
pub(crate) mod testing {
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write as _;

    pub(crate) const CONTROL: &str = "Package: oblet-agent\nVersion: 0.1.0-2\nArchitecture: amd64\nInstalled-Size: 12\n\
                                      Description: agent\n Version: of a line that goes on\n";

    fn tar(name: &str, content: &str) -> Vec<u8> {
        let mut block = vec![0; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        block.extend(content.as_bytes());
        block.resize(block.len().next_multiple_of(512), 0);
        block
    }

    pub(crate) fn archive(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = super::ARCHIVE.to_vec();
        for (name, content) in parts {
            writeln!(archive, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, "100644", content.len()).unwrap();
            archive.extend(*content);
            archive.resize(archive.len().next_multiple_of(2), b'\n');
        }
        archive
    }

    pub(crate) fn compressed_control(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&tar("./", "")).unwrap();
        encoder.write_all(&tar("./conffiles", "/etc/a\n")).unwrap();
        encoder.write_all(&tar("./control", text)).unwrap();
        encoder.finish().unwrap()
    }

    pub(crate) fn deb(control: &str) -> Vec<u8> {
        let control = compressed_control(control);
        archive(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &control), ("data.tar.gz", b"the contents")])
    }
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{CONTROL, archive, compressed_control, deb},
        *,
    };
    use proptest::prelude::*;
    use std::io::Cursor;

    fn told(bytes: Vec<u8>) -> Result<Control, DebError> {
        read(&mut Cursor::new(bytes))
    }

    #[test]
    fn a_package_says_what_it_is() {
        let control = told(deb(CONTROL)).unwrap();
        assert_eq!(control.package.file_name(), "oblet-agent_0.1.0-2_amd64.deb");
        assert_eq!(control.installed_bytes, 12 << 10);
    }

    #[test]
    fn a_truncated_or_strange_file_is_refused() {
        let whole = deb(CONTROL);
        for length in 0..whole.len() {
            assert!(told(whole[..length].to_vec()).is_err(), "{length} of {} bytes", whole.len());
        }
        let longer = [whole, b"more".to_vec()].concat();
        assert!(matches!(told(longer).unwrap_err(), DebError::Size));
        let other = archive(&[("debian-binary", b"2.0\n"), ("control.tar.xz", b"x"), ("data.tar.xz", b"x")]);
        assert!(matches!(told(other).unwrap_err(), DebError::Member { expected: "control.tar.gz", .. }));
        assert!(matches!(told(deb("Package: x\nArchitecture: all\n")).unwrap_err(), DebError::Field("Version")));
        let hostile = CONTROL.replace("oblet-agent", "../../etc");
        assert!(matches!(told(deb(&hostile)).unwrap_err(), DebError::Package(_)));
    }

    #[test]
    fn a_control_file_that_fills_the_memory_is_not_read() {
        let bomb = compressed_control(&"x".repeat((MAX_CONTROL_BYTES + 1) as usize));
        let file = archive(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &bomb), ("data.tar.gz", b"x")]);
        assert!(matches!(told(file).unwrap_err(), DebError::NoControl));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(at in 0_usize..700, byte: u8, noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = deb(CONTROL);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = told(bytes);
            let _ = told([ARCHIVE.to_vec(), noise].concat());
        }
    }
}
