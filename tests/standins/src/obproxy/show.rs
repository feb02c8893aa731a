//! The SHOW statements.

use super::{
    Proxy,
    answer::Answer,
    config::Config,
    items::Item,
    quoting::{Token, like},
};
use std::env;

/// S1
const COLUMNS: [&str; 7] = ["name", "value", "info", "need_reboot", "visible_level", "range", "config_level"];
/// S7
const ALL_COLUMNS: [&str; 8] = ["vid", "vip", "vport", "tenant_name", "cluster_name", "name", "value", "config_level"];
/// S6
const LEVEL_COLUMNS: [&str; 4] = ["parent_mod", "sub_mod", "level", "usage"];
/// S6: a few of the 72.
const MODULES: [(&str, &str); 6] =
    [("ALL", "*"), ("COMMON", "*"), ("PROXY", "*"), ("PROXY", "CS"), ("PROXY", "SM"), ("PROXY", "SSL")];
/// S13
pub(super) const WITHOUT_ROWS_HERE: [&str; 10] = [
    "proxysession",
    "proxynet",
    "proxystat",
    "proxymemory",
    "proxyresource",
    "proxyvip",
    "proxysm",
    "proxyroute",
    "proxycongestion",
    "processlist",
];
/// S14
pub(super) const TABLES: [&str; 2] = ["proxy_config", "white_list"];

/// What follows `SHOW PROXYCONFIG`.
pub(super) fn config(rest: &[Token], proxy: &Proxy) -> Answer {
    let rules = proxy.version.rules;
    let words: Vec<String> = rest.iter().map(Token::keyword).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match (words.as_slice(), rest.last()) {
        ([], _) => rows(proxy, |_, _| true),
        (["like", _], Some(Token::Quoted(name))) if name == "syslog_level" => levels(proxy), // S6
        (["like", _], Some(Token::Quoted(pattern))) => rows(proxy, |_, item| like(pattern, item.name)), // S5
        (["diff"], _) if rules.show_diff => {
            rows(proxy, |config, item| config.get(item.name) != config.default_of(item)) // S7
        }
        (["all"], _) if rules.show_diff => all(proxy),
        _ => Answer::unknown(),
    }
}

/// S1 to S4, S21
fn rows(proxy: &Proxy, wanted: impl Fn(&Config, &Item) -> bool) -> Answer {
    let row = |config: &Config, item: &Item| {
        let need_reboot = if item.need_reboot { "true" } else { "false" };
        [
            item.name,
            config.get(item.name),
            &item.info(),
            need_reboot,
            item.visible_level,
            item.kind.range(),
            "LEVEL_GLOBAL",
        ]
        .map(str::to_owned)
        .into_iter()
        .take(proxy.version.rules.config_columns)
        .collect::<Vec<_>>()
    };
    let rows: Vec<Vec<String>> = proxy.with_config(|config| {
        config.items().filter(|item| wanted(config, item)).map(|item| row(config, item)).collect()
    });
    let columns = COLUMNS.get(..proxy.version.rules.config_columns).unwrap_or(&COLUMNS);
    Answer::rows(columns, rows)
}

/// S7; what stands for "everywhere" in the first five columns was not looked at.
fn all(proxy: &Proxy) -> Answer {
    let rows: Vec<[String; 8]> = proxy.with_config(|config| {
        let row = |item: &Item| ["-1", "", "0", "", "", item.name, config.get(item.name), "LEVEL_GLOBAL"];
        config.items().map(|item| row(item).map(str::to_owned)).collect()
    });
    Answer::rows(&ALL_COLUMNS, rows)
}

/// S6
fn levels(proxy: &Proxy) -> Answer {
    let level = proxy.with_config(|config| config.get("syslog_level").to_owned());
    let usage = |module: &str, part: &str| format!("alter proxyconfig set syslog_level='{module}.{part}:{level}'");
    let row = |(module, part): (&str, &str)| [module.into(), part.into(), level.clone(), usage(module, part)];
    Answer::rows(&LEVEL_COLUMNS, MODULES.map(row))
}

/// S8
pub(super) fn binary(proxy: &Proxy) -> Answer {
    let info = format!(
        "ObProxy-OceanBase {} (stand-in)\nversion:RELEASE_UNKNOWN\nMD5:\nREVISION:1-local-standin\n\
         BUILD_TIME:Nov 21 2026 12:04:12\nBUILD_FLAGS:stand-in",
        proxy.version.text
    );
    Answer::rows(&["name", "info"], [["binary info".to_owned(), info]])
}

/// S9
pub(super) fn upgrade(proxy: &Proxy) -> Answer {
    let arguments: Vec<String> =
        env::args().enumerate().map(|(index, argument)| format!("argv[{index}]={argument:?}")).collect();
    let info = format!(
        "{{is_inited:true, proxy_port:{}, proxy_ip:\"127.0.0.1\", info:{{is_inherited:false, \
         state:\"HU_STATE_WAIT_HU_CMD\", is_parent:true, argc:{}, {}}}}}",
        proxy.sql_port,
        arguments.len(),
        arguments.join(", ")
    );
    Answer::rows(&["name", "info"], [["hot upgrade info".to_owned(), info]])
}
