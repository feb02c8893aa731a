//! The command line.

use std::collections::HashMap;

pub const USAGE: &str = "obproxy [OPTIONS]
 -p, --listen_port PORT              SQL port
 -l, --prometheus_listen_port PORT   metrics port
 -s, --rpc_listen_port PORT          RPC port
 -o, --optstr K=V,K=V                configuration items
 -n, --appname NAME                  application name
 -r, --rs_list IP:PORT;IP:PORT       SQL addresses of the observers
 -c, --cluster_name NAME             cluster of --rs_list
 -e, --execute                       execute metadb configuration SQL
 -N, --nodaemon                      stay in the foreground
 -V, --version                       print the version";

/// What was asked for: configuration items in order, and the faults to play.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub items: Vec<(String, String)>,
    pub faults: HashMap<String, String>,
    pub foreground: bool,
    pub version: bool,
    pub help: bool,
}

impl Options {
    /// Understands `-p2883`, `-p 2883`, `--listen_port 2883` and `--listen_port=2883`.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (flag, mut attached) = split(&argument)?;
            match flag {
                "N" | "nodaemon" => options.foreground = true,
                "V" | "version" => options.version = true,
                "h" | "help" => options.help = true,
                // The stand-in has no metadb to read from.
                "e" | "execute" => {}
                _ => {
                    let value = attached.take().or_else(|| arguments.next());
                    options.put(flag, &value.ok_or_else(|| format!("{argument} needs a value"))?)?;
                }
            }
            if attached.is_some() {
                return Err(format!("{argument} takes no value"));
            }
        }
        Ok(options)
    }

    fn put(&mut self, flag: &str, value: &str) -> Result<(), String> {
        let name = match flag {
            "p" | "listen_port" => "listen_port",
            "l" | "prometheus_listen_port" => "prometheus_listen_port",
            "s" | "rpc_listen_port" => "rpc_listen_port",
            "n" | "appname" => "app_name",
            "r" | "rs_list" => "rootservice_list",
            "c" | "cluster_name" => "rootservice_cluster_name",
            "o" | "optstr" => return self.put_items(value),
            _ => return Err(format!("unknown option {flag}")),
        };
        self.items.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    fn put_items(&mut self, text: &str) -> Result<(), String> {
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let (name, value) = item.split_once('=').ok_or_else(|| format!("{item:?} is not name=value"))?;
            let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
            if name.starts_with("standin_") {
                self.faults.insert(name, value);
            } else {
                self.items.push((name, value));
            }
        }
        Ok(())
    }
}

fn split(argument: &str) -> Result<(&str, Option<String>), String> {
    if let Some(long) = argument.strip_prefix("--") {
        return Ok(match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        });
    }
    let short = argument.strip_prefix('-').and_then(|rest| rest.split_at_checked(1));
    let (flag, value) = short.ok_or_else(|| format!("unexpected argument {argument:?}"))?;
    Ok((flag, Some(value.to_owned()).filter(|value| !value.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn all_spellings_of_an_option_are_one() {
        let expected = parse("-p 2883 -l 2884").unwrap();
        assert_eq!(parse("-p2883 -l2884").unwrap(), expected);
        assert_eq!(parse("--listen_port=2883 --prometheus_listen_port 2884").unwrap(), expected);
    }

    #[test]
    fn faults_are_kept_apart_from_items() {
        let options = parse("-N -o proxy_id=7,standin_exit_code=3").unwrap();
        assert_eq!(options.items, [("proxy_id".to_owned(), "7".to_owned())]);
        assert_eq!(options.faults.get("standin_exit_code").map(String::as_str), Some("3"));
        assert!(options.foreground);
    }

    #[test]
    fn mistakes_are_refused() {
        for line in ["-x 1", "-p", "-o proxy_id", "listen_port", "-Nx"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
