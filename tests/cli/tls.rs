//! HTTPS: whom the CLI trusts.

use axum::{Router, routing::get};
use axum_server::tls_rustls::{RustlsConfig, from_tcp_rustls};
use insta::assert_snapshot;
use oblet::tls::{CertificateAuthority, Role, install_crypto_provider};
use serde_json::json;
use std::net::{Ipv4Addr, TcpListener};

use crate::fake::{Fake, PASSWORD, oblet, page, tell};

#[tokio::test]
async fn only_the_given_authority_is_trusted() {
    install_crypto_provider();
    let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = CertificateAuthority::load_or_create(ours.path()).unwrap();
    CertificateAuthority::load_or_create(other.path()).unwrap();
    let issued = authority.issue(Role::Rest, "coordinator", &[Ipv4Addr::LOCALHOST.into()]).unwrap();
    let config =
        RustlsConfig::from_pem(issued.certificate_pem.into(), issued.key_pem.as_bytes().to_vec()).await.unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let hosts = json!({"data": page(json!([{"id": 1}])), "status": 200, "successful": true}).to_string();
    let router = Router::new().route("/api/v2/compute/hosts", get(async || hosts));
    tokio::spawn(from_tcp_rustls(listener, config).unwrap().serve(router.into_make_service()));

    let mut told = String::new();
    for (directory, name) in [(&ours, "ours"), (&other, "other")] {
        let ca = directory.path().join("ca.pem");
        let args = ["host", "list", "-o", "name", "--ca", ca.to_str().unwrap()];
        let output = oblet(&args).env("OBLET_URL", &url).env("OBLET_PASSWORD", PASSWORD).output().await.unwrap();
        told += &tell(&args, &output)
            .replace(directory.path().to_str().unwrap(), name)
            .replace(&url, "https://COORDINATOR");
        told += "\n\n";
    }
    assert_snapshot!(told);

    let ca = ours.path().join("ca.pem");
    let args = ["host", "list"];
    let plain = url.replace("https", "http");
    let output = oblet(&args).env("OBLET_URL", &plain).env("OBLET_PASSWORD", PASSWORD).output().await.unwrap();
    let mut told = tell(&args, &output).replace(&plain, "http://COORDINATOR");
    let named = url.replace("127.0.0.1", "localhost");
    let output = oblet(&args)
        .env("OBLET_URL", &named)
        .env("OBLET_CA", &ca)
        .env("OBLET_PASSWORD", PASSWORD)
        .output()
        .await
        .unwrap();
    told += &format!("\n\n{}", tell(&args, &output).replace(&named, "https://COORDINATOR"));
    assert_snapshot!("other_ways_to_miss_it", told);
}

#[tokio::test]
async fn a_port_that_speaks_no_tls_is_named_as_such() {
    let fake = Fake::start().await;
    let url = fake.url.replace("http", "https");
    let args = ["host", "list"];
    let ours = tempfile::tempdir().unwrap();
    CertificateAuthority::load_or_create(ours.path()).unwrap();
    let output = oblet(&args)
        .env("OBLET_URL", &url)
        .env("OBLET_CA", ours.path().join("ca.pem"))
        .env("OBLET_PASSWORD", PASSWORD)
        .output()
        .await
        .unwrap();
    assert_snapshot!(tell(&args, &output).replace(&url, "https://COORDINATOR"));
}
