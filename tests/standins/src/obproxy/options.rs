//! The command line.

use super::version::Rules;

/// C7: the misspelt option is the real one.
const USAGE: &str = "obproxy [OPTIONS]
 -h,--help                              print this help
 -p,--listen_port         LISTEN_PORT   obproxy listen port
 -l,--promethues_listen_port PORT       obproxy prometheus listen port
";
const RPC_USAGE: &str = " -s,--rpc_listen_port     LISTEN_PORT   obproxy rpc listen port\n";
const MORE_USAGE: &str = " -o,--optstr              OPTSTR        extra options string
 -n,--appname             APPNAME       application name
 -r,--rs_list             RS_LIST       root server list(format ip:sql_port)
 -c,--cluster_name        CLUSTER_NAME  root server cluster name
 -d,--dump_config_sql     DUMP          dump config sql to file
 -e,--execute_config_sql  EXECUTE       exectute config sql
 -N,--nodaemon                          don't run in daemon
 -V,--version             VERSION       print version
 -R,--releaseid           RELEASEID     print release id
 -t,--regression_test     TEST_NAME     regression test
";

/// Short and long name, and whether a value follows.
const OPTIONS: &[(char, &str, bool)] = &[
    ('h', "help", false),
    ('p', "listen_port", true),
    ('l', "promethues_listen_port", true),
    ('s', "rpc_listen_port", true),
    ('o', "optstr", true),
    ('n', "appname", true),
    ('r', "rs_list", true),
    ('c', "cluster_name", true),
    ('d', "dump_config_sql", false),
    ('e', "execute_config_sql", false),
    ('N', "nodaemon", false),
    ('V', "version", false),
    ('R', "releaseid", false),
    ('t', "regression_test", true),
];

/// What is asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    #[default]
    Serve,
    Help,
    Version,
    Release,
    Dump,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Configuration items in order.
    pub(super) items: Vec<(String, String)>,
    pub(super) foreground: bool,
    pub(super) action: Action,
}

/// The `ret=` that obproxy prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mistake(pub(super) i32);

/// C4
const BAD_OPTION: Mistake = Mistake(-4104);
/// C5
const BAD_VALUE: Mistake = Mistake(-4002);

pub(super) fn usage(rules: &Rules) -> String {
    [USAGE, if rules.rpc_port { RPC_USAGE } else { "" }, MORE_USAGE].concat()
}

impl Options {
    /// Understands `-p2883`, `-p 2883`, `-Np2883`, `--listen_port 2883` and `--listen_port=2883`.
    pub(super) fn parse(arguments: impl IntoIterator<Item = String>, rules: &Rules) -> Result<Self, Mistake> {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if let Some(long) = argument.strip_prefix("--") {
                let (name, attached) =
                    long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value.to_owned())));
                // Silent: getopt would take an abbreviated name too.
                let option = OPTIONS.iter().find(|(_, long, _)| *long == name);
                options.take(option, attached, &mut arguments, rules)?;
                continue;
            }
            // Silent: what stands alone is refused.
            let mut rest = argument.strip_prefix('-').filter(|rest| !rest.is_empty()).ok_or(BAD_OPTION)?.chars();
            while let Some(short) = rest.next() {
                let option = OPTIONS.iter().find(|(letter, ..)| *letter == short);
                let valued = option.is_some_and(|(.., valued)| *valued);
                let attached = Some(rest.as_str().to_owned()).filter(|value| valued && !value.is_empty());
                options.take(option, attached, &mut arguments, rules)?;
                if valued {
                    break;
                }
            }
        }
        Ok(options)
    }

    fn take(
        &mut self,
        option: Option<&(char, &str, bool)>,
        attached: Option<String>,
        arguments: &mut impl Iterator<Item = String>,
        rules: &Rules,
    ) -> Result<(), Mistake> {
        let (letter, _, valued) = *option.ok_or(BAD_OPTION)?;
        let value = match (valued, attached) {
            (true, attached) => attached.or_else(|| arguments.next()).ok_or(BAD_OPTION)?,
            (false, None) => String::new(),
            (false, Some(_)) => return Err(BAD_OPTION),
        };
        match letter {
            'N' => self.foreground = true,
            'h' => self.action = Action::Help,
            'V' => self.action = Action::Version,
            'R' => self.action = Action::Release,
            'd' => self.action = Action::Dump,
            'p' => self.put_port("listen_port", value)?,
            'l' => self.put_port("prometheus_listen_port", value)?,
            's' if rules.rpc_port => self.put_port("rpc_listen_port", value)?,
            's' => return Err(BAD_OPTION), // V1
            'n' => self.put("app_name", value),
            'r' => self.put("rootservice_list", value),
            'c' => self.put("rootservice_cluster_name", value),
            'o' => self.put_items(&value)?,
            // `-e` and `-t`: there is no metadb here, and nothing to test.
            _ => {}
        }
        Ok(())
    }

    fn put(&mut self, name: &str, value: String) {
        self.items.push((name.to_owned(), value));
    }

    /// C5
    fn put_port(&mut self, name: &str, value: String) -> Result<(), Mistake> {
        value.parse().ok().filter(|&port: &u16| port > 1024).ok_or(BAD_VALUE)?;
        self.put(name, value);
        Ok(())
    }

    /// C14. Silent on blanks, which stay, and on text without `=`, which is refused.
    fn put_items(&mut self, text: &str) -> Result<(), Mistake> {
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let (name, value) = item.split_once('=').ok_or(BAD_VALUE)?;
            self.put(name, value.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::version::Version, *};

    fn parse(line: &str) -> Result<Options, Mistake> {
        Options::parse(line.split(' ').map(str::to_owned), Version::of("4.3.1.0-1.el8").rules)
    }

    #[test]
    fn all_spellings_of_an_option_are_one() {
        let expected = parse("-N -p 2883 -l 2884").unwrap();
        assert_eq!(parse("-Np2883 -l2884").unwrap(), expected);
        assert_eq!(parse("--nodaemon --listen_port=2883 --promethues_listen_port 2884").unwrap(), expected);
    }

    #[test]
    fn mistakes_are_refused() {
        for line in ["-Z", "--bogus", "-p", "listen_port", "--nodaemon=1", "--prometheus_listen_port 2884", "-"] {
            assert_eq!(parse(line), Err(BAD_OPTION), "{line}");
        }
        for line in ["-p 80", "-p abc", "-l 70000", "-s 1024", "-o proxy_id"] {
            assert_eq!(parse(line), Err(BAD_VALUE), "{line}");
        }
    }

    #[test]
    fn older_versions_have_no_rpc_port() {
        let arguments = ["-s".to_owned(), "2885".to_owned()];
        assert_eq!(Options::parse(arguments, Version::of("1.9.1.1-1").rules), Err(BAD_OPTION));
    }
}
