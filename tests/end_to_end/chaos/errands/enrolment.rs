//! A host is enrolled once or not at all, however often programs die over it.

use super::{HOSTS, PATIENCE, POLL, Place, Site, Violation, Work, admit, require, shown_by};
use crate::{chaos::operator::text, tokens::ask_for};
use oblet::telemetry::chain;
use reqwest::Method;
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, time::Instant};

pub(super) async fn run(site: &Site, host: usize, rival: bool) -> Result<String, Violation> {
    let tokens = bring_in(site, host, rival).await?;
    admit(site, host, "guest").await?;
    site.end(Work::Enrolment, Some(host));
    let place = site.place(host);
    for token in &tokens {
        works_no_more(site, &place, token).await?;
    }
    let used = check_records(site, &place).await?;
    Ok(format!("{} tokens, {used} used", tokens.len()))
}

/// Gives a bare host its certificate and starts its agent; answers the tokens that it took.
pub(super) async fn bring_in(site: &Site, host: usize, rival: bool) -> Result<Vec<Value>, Violation> {
    let place = site.place(host);
    let deadline = Instant::now() + PATIENCE;
    let mut tokens = Vec::new();
    while !place.directory.join("tls/agent.pem").exists() {
        require(Instant::now() < deadline, || format!("{} is not enrolled", place.address))?;
        let token = usable(site, &place, &mut tokens).await?;
        site.enroll(host, &token);
        if rival {
            // Whoever of the two comes first has the certificate, and the other one nothing.
            let _ = ask(&place, "rival", &token).await;
        }
        while !site.is_down(host) && !place.directory.join("tls/agent.pem").exists() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
    }
    // The program may have died between the certificate and its last words.
    while !site.is_down(host) && !place.answers() {
        require(Instant::now() < deadline, || format!("the enrolment of {} does not end", place.address))?;
        tokio::time::sleep(POLL).await;
    }
    site.serve(host).await?;
    Ok(tokens)
}

/// The newest token, or another one if that was used and its certificate got lost.
async fn usable(site: &Site, place: &Place, tokens: &mut Vec<Value>) -> Result<Value, Violation> {
    if let Some(newest) = tokens.last() {
        let listed = listed(site, place).await?;
        let status = listed.iter().find(|token| token["id"] == newest["id"]).map(|token| text(&token["status"]));
        match status {
            Some("OPEN") => return Ok(newest.clone()),
            Some("USED") => {}
            other => return Err(format!("token {} is {other:?}", newest["id"])),
        }
    }
    let body = json!({"innerIpAddressList": [place.address], "ttlSeconds": 600});
    let path = format!("{HOSTS}/enrolmentTokens");
    let (status, answer) = site.operator.insist(Method::POST, &path, &body, None).await?;
    require(status == 200, || format!("no token: {status}: {answer}"))?;
    let token = answer["data"]["contents"][0].clone();
    tokens.push(token.clone());
    Ok(token)
}

async fn listed(site: &Site, place: &Place) -> Result<Vec<Value>, Violation> {
    let mut tokens = site.operator.list(&format!("{HOSTS}/enrolmentTokens")).await?;
    tokens.retain(|token| token["innerIpAddress"] == place.address.to_string());
    Ok(tokens)
}

/// Somebody else at the host's address; answers the refusal.
async fn ask(place: &Place, name: &str, token: &Value) -> Result<(), String> {
    let directory = place.directory.join(name);
    fs::create_dir_all(&directory).unwrap();
    let asked = ask_for(token, place.address.into(), &directory, 0).await;
    asked.map(drop).map_err(|error| chain(&error))
}

/// A token that let somebody in lets in nobody else.
async fn works_no_more(site: &Site, place: &Place, token: &Value) -> Result<(), Violation> {
    let is_used = |token: &&Value| token["status"] == "USED";
    let used: Vec<Value> = listed(site, place).await?.iter().filter(is_used).map(|token| token["id"].clone()).collect();
    if !used.contains(&token["id"]) {
        return Ok(());
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask(place, "replay", token).await {
            Ok(()) => return Err(format!("token {} worked twice", token["id"])),
            Err(refusal) if refusal.contains("the token was used") => return Ok(()),
            // The coordinator may be down at the moment.
            Err(_) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            Err(error) => return Err(format!("a used token is not refused as such: {error}")),
        }
    }
}

/// Tokens, certificates and the audit log tell the same; answers how many tokens were used.
async fn check_records(site: &Site, place: &Place) -> Result<usize, Violation> {
    let address = place.address.to_string();
    let used: Vec<Value> = listed(site, place).await?.into_iter().filter(|token| token["status"] == "USED").collect();
    let serials: BTreeSet<&str> = used.iter().map(|token| text(&token["certificateSerial"])).collect();
    let events = site.operator.list("/api/v2/audit/events").await?;
    let enrolled = events
        .iter()
        .filter(|event| event["action"] == "host.enroll" && event["object"] == format!("host {address}"))
        .count();
    let consistent = !used.is_empty() && serials.len() == used.len() && enrolled == used.len();
    require(consistent, || format!("{enrolled} enrolments of {address} with the tokens {used:?}"))?;
    let certificates = site.operator.list(&format!("{HOSTS}/certificates")).await?;
    let issued: BTreeSet<&str> = certificates
        .iter()
        .filter(|certificate| certificate["innerIpAddress"] == address)
        .map(|certificate| text(&certificate["serial"]))
        .collect();
    require(serials.is_subset(&issued), || format!("{address} was given {serials:?}, and {issued:?} are known"))?;
    let shown = shown_by(site, place).await?;
    require(issued.contains(&*shown), || format!("{address} shows {shown}, not of {issued:?}"))?;
    Ok(used.len())
}
