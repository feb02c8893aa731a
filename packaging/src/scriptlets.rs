//! What happens around the files of a package with a service, in the words of each format.
//!
//! 1. Installing starts and enables nothing.
//! 2. An upgrade restarts the service if it runs, after all files are in place, and touches no other unit.
//! 3. Removal stops the service, leaves data, keys and database processes, and says so.
//! 4. No scriptlet fails a transaction.
//!
//! rpm tells an upgrade by the number of copies that are left, dpkg by words; the guards below are all that differs.

/// A service and what its scriptlets do beside managing it, as shell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service {
    pub(crate) unit: &'static str,
    /// Runs after each installation and upgrade, once the files are in place.
    pub(crate) set_up: &'static str,
    /// Tells after a removal what is left.
    pub(crate) left: &'static str,
    /// Removes what Debian's purge asks for; rpm has no such word.
    pub(crate) purge: &'static str,
}

#[derive(Debug)]
pub(crate) struct RpmScripts {
    pub(crate) post: String,
    pub(crate) preun: String,
    pub(crate) postun: String,
    pub(crate) posttrans: String,
}

#[derive(Debug)]
pub(crate) struct DebianScripts {
    pub(crate) postinst: String,
    pub(crate) prerm: String,
    pub(crate) postrm: String,
}

/// Functions around systemctl.
const COMMON: &str = include_str!("../scriptlets/service.sh");

impl Service {
    pub(crate) fn rpm(&self) -> RpmScripts {
        RpmScripts {
            post: self.script(&[self.set_up, "reload_units\nif [ \"$1\" -eq 1 ]; then preset_service; fi"]),
            preun: self.script(&["if [ \"$1\" -eq 0 ]; then stop_service; fi"]),
            postun: self.script(&["if [ \"$1\" -eq 0 ]; then\nreload_units", self.left, "fi"]),
            // After a first installation the service does not run, so there is nothing to tell apart.
            posttrans: self.script(&["restart_service"]),
        }
    }

    pub(crate) fn debian(&self) -> DebianScripts {
        let shell = |parts: &[&str]| format!("#!/bin/sh\n{}", self.script(parts));
        DebianScripts {
            postinst: shell(&[
                "if [ \"$1\" = configure ]; then",
                self.set_up,
                "reload_units",
                // The second argument is the version that was configured before, if there was one.
                "if [ -z \"${2:-}\" ]; then preset_service; else restart_service; fi\nfi",
            ]),
            prerm: shell(&["if [ \"$1\" = remove ]; then stop_service; fi"]),
            postrm: shell(&["case \"$1\" in\nremove)\nreload_units", self.left, ";;\npurge)", self.purge, ";;\nesac"]),
        }
    }

    /// Comments are for readers of the source.
    fn script(&self, parts: &[&str]) -> String {
        let unit = format!("unit={}", self.unit);
        let text = [unit.as_str(), COMMON].into_iter().chain(parts.iter().copied()).flat_map(str::lines);
        text.filter(|line| !line.is_empty() && !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect()
    }
}

#[cfg(test)]
#[path = "scriptlet_tests.rs"]
mod tests;
