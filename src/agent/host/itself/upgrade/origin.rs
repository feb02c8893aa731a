//! From which file the agent was installed. A package of the same name may hold another program, so the way back takes
//! the file by its digest, and only while what runs is what that file brought.

use crate::{
    agent::{host::durable, packages::digest},
    steps::values::{PackageRef, Sha256},
};
use serde::{Deserialize, Serialize};
use std::{io, path::Path};

/// The package from which an exchange installed the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) package: PackageRef,
    /// Of the package's file.
    pub(super) sha256: Sha256,
    /// Digest of the program that it brought.
    program: String,
}

impl Origin {
    /// Writes down where the installed `program` comes from.
    pub(super) fn write(path: &Path, package: &PackageRef, sha256: &Sha256, program: &Path) -> io::Result<()> {
        let program = digest(program)?;
        durable::write_json(path, &Self { package: package.clone(), sha256: sha256.clone(), program })
    }

    /// What was written down, if it is true of this package and of the program that runs.
    pub(super) fn read(path: &Path, package: &PackageRef, running: &Path) -> io::Result<Option<Self>> {
        let Some(origin) = durable::read_json::<Self>(path)? else { return Ok(None) };
        Ok((origin.package == *package && origin.program == digest(running)?).then_some(origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_origin_holds_for_its_package_and_its_program_only() {
        let directory = tempfile::tempdir().unwrap();
        let (file, program) = (directory.path().join("origin"), directory.path().join("program"));
        let [one, other] =
            ["oblet-agent_0.1.0-1_amd64.deb", "oblet-agent_0.1.0-2_amd64.deb"].map(|p| p.parse().unwrap());
        fs::write(&program, "one").unwrap();
        assert_eq!(Origin::read(&file, &one, &program).unwrap(), None);
        Origin::write(&file, &one, &"a".repeat(64).parse().unwrap(), &program).unwrap();
        assert!(Origin::read(&file, &one, &program).unwrap().is_some());
        assert_eq!(Origin::read(&file, &other, &program).unwrap(), None);
        fs::write(&program, "built again under the same name").unwrap();
        assert_eq!(Origin::read(&file, &one, &program).unwrap(), None);
    }
}
