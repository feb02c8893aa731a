//! What happens around the files of a package with a service, in the words of each format.
//!
//! 1. Installing starts and enables nothing.
//! 2. An upgrade restarts the service if it runs, after all files are in place, and touches no other unit.
//! 3. Removal stops the service, leaves data, keys and database processes, and says so.
//! 4. No scriptlet fails a transaction.
//!
//! rpm tells by the number of copies that are left, dpkg by words; the guards below are all that differs.

/// The scriptlets of one service.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    pub unit: &'static str,
    /// Shell functions `set_up`, `say_what_is_left` and `purge`.
    pub functions: &'static str,
}

const COMMON: &str = include_str!("../scriptlets/service.sh");

/// Scriptlets in rpm's order.
#[derive(Debug)]
pub struct RpmScripts {
    pub post: String,
    pub preun: String,
    pub postun: String,
    pub posttrans: String,
}

#[derive(Debug)]
pub struct DebianScripts {
    pub postinst: String,
    pub prerm: String,
    pub postrm: String,
}

impl Service {
    pub fn rpm(&self) -> RpmScripts {
        RpmScripts {
            post: self.script("set_up\nreload_units\nif [ \"$1\" -eq 1 ]; then preset_service; fi"),
            preun: self.script("if [ \"$1\" -eq 0 ]; then stop_service; fi"),
            postun: self.script("if [ \"$1\" -eq 0 ]; then reload_units; say_what_is_left; fi"),
            // After a first installation the service does not run, so there is nothing to tell apart.
            posttrans: self.script("restart_service"),
        }
    }

    pub fn debian(&self) -> DebianScripts {
        let shell = |action| format!("#!/bin/sh\n{}", self.script(action));
        DebianScripts {
            // The second argument is the version that was configured before, if there was one.
            postinst: shell(
                "if [ \"$1\" = configure ]; then\n  set_up\n  reload_units\n  \
                 if [ -z \"${2:-}\" ]; then preset_service; else restart_service; fi\nfi",
            ),
            prerm: shell("if [ \"$1\" = remove ]; then stop_service; fi"),
            postrm: shell(
                "case \"$1\" in\n  remove) reload_units; say_what_is_left ;;\n  purge) purge ;;\nesac",
            ),
        }
    }

    fn script(&self, action: &str) -> String {
        let text = format!("unit={}\n{COMMON}\n{}\n{action}\n", self.unit, self.functions);
        let code = text.lines().filter(|line| !line.is_empty() && !line.trim_start().starts_with('#'));
        code.flat_map(|line| [line, "\n"]).collect()
    }
}
