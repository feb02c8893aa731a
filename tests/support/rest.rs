use serde_json::Value;
use std::{net::SocketAddr, path::Path, time::Duration};

/// The coordinator's REST interface, as its administrator sees it.
#[derive(Clone)]
pub(crate) struct Rest {
    client: reqwest::Client,
    address: SocketAddr,
    password: String,
}

impl Rest {
    pub(crate) fn new(address: SocketAddr, ca: &[u8], password: &str) -> Self {
        let ca = reqwest::Certificate::from_pem(ca).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([ca]).timeout(Duration::from_secs(30)).build().unwrap();
        Self { client, address, password: password.to_owned() }
    }

    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("https://{}{path}", self.address));
        request.basic_auth("admin", Some(&self.password))
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, reqwest::Error> {
        self.request(reqwest::Method::GET, path).send().await?.json().await
    }

    /// Answers status and body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<(u16, Value), reqwest::Error> {
        let response = self.request(reqwest::Method::POST, path).json(body).send().await?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    pub(crate) async fn upload(&self, package: &Path) {
        let form = reqwest::multipart::Form::new().file("file", package).await.unwrap();
        let request = self.request(reqwest::Method::POST, "/api/v2/software-packages").multipart(form);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }
}
