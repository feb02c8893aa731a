use super::*;
use crate::{clock::now_micros, tls::Requested};

const MINUTE: i64 = 60_000_000;
const LIFE: Duration = Duration::from_secs(3600);

struct Place {
    _directory: tempfile::TempDir,
    enrolment: Enrolment,
    host: IpAddr,
    now: i64,
}

impl Place {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db")).await.unwrap();
        let authority = Arc::new(CertificateAuthority::load_or_create(directory.path()).unwrap());
        let enrolment = Enrolment::new(store, authority, LIFE).unwrap();
        Self { _directory: directory, enrolment, host: "192.0.2.1".parse().unwrap(), now: now_micros() }
    }

    async fn token(&self, any_source: bool) -> Zeroizing<String> {
        let draft = Draft { address: self.host, any_source, creator: "admin", expires_at: self.now + 60 * MINUTE };
        let mut transaction = self.enrolment.store.begin().await.unwrap();
        let (_, token) = self.enrolment.make_token(&mut transaction, &draft).await.unwrap();
        transaction.commit().await.unwrap();
        token
    }

    /// What the right host asks at the right time.
    fn application<'a>(&self, token: &'a str, request_pem: &'a str) -> Application<'a> {
        Application { token, request_pem, host_time: self.now, source: self.host, trace_id: "0123456789abcdef" }
    }

    /// Asks so, but for what `change` does to it.
    async fn ask(&self, token: &str, change: impl FnOnce(&mut Application<'_>)) -> Result<Admission, EnrolmentError> {
        let requested = Requested::generate().unwrap();
        let mut application = self.application(token, &requested.request_pem);
        change(&mut application);
        self.enrolment.admit(&application, self.now).await
    }

    async fn audited(&self) -> Vec<(String, String)> {
        let mut connection = self.enrolment.store.readers().acquire().await.unwrap();
        let (events, _) = audit::list(&mut connection, 100, 0).await.unwrap();
        events.into_iter().rev().map(|event| (event.action, event.detail)).collect()
    }
}

#[tokio::test]
async fn a_token_gives_one_certificate_for_its_host() {
    let place = Place::new().await;
    let token = place.token(false).await;
    let admitted = place.ask(&token, |_| {}).await.unwrap();
    assert_eq!((admitted.address, admitted.facts.addresses), (place.host, vec![place.host]));
    let replay = place.ask(&token, |_| {}).await.unwrap_err().to_string();
    assert!(replay.contains("192.0.2.1") && replay.contains(&admitted.facts.serial), "{replay}");
    let audited = place.audited().await;
    assert_eq!(
        audited.iter().map(|(action, _)| action.as_str()).collect::<Vec<_>>(),
        ["host.enroll", "host.enroll.refuse"]
    );
    assert!(audited.iter().all(|(_, detail)| !detail.contains(token.as_str())));
}

#[tokio::test]
async fn a_stolen_token_is_worth_nothing_elsewhere_and_stays_good_for_its_host() {
    let place = Place::new().await;
    let token = place.token(false).await;
    let thief: IpAddr = "192.0.2.66".parse().unwrap();
    let stolen = place.ask(&token, |application| application.source = thief).await.unwrap_err();
    assert!(matches!(stolen, EnrolmentError::OtherSource { .. }), "{stolen}");
    place.ask(&token, |_| {}).await.unwrap();
    let roaming = place.token(true).await;
    let admitted = place.ask(&roaming, |application| application.source = thief).await.unwrap();
    assert_eq!(admitted.facts.addresses, [place.host], "whoever asks, it is for the host");
}

#[tokio::test]
async fn a_clock_may_differ_by_five_minutes_and_no_more() {
    let place = Place::new().await;
    let token = place.token(false).await;
    for minutes in [-60, -6, 6, 60] {
        let wrong = place.ask(&token, |application| application.host_time += minutes * MINUTE).await.unwrap_err();
        assert!(matches!(wrong, EnrolmentError::Clock { .. }), "{minutes}: {wrong}");
    }
    place.ask(&token, |application| application.host_time += 5 * MINUTE).await.unwrap();
}

#[tokio::test]
async fn a_forged_request_is_refused_and_written_down() {
    let place = Place::new().await;
    let token = place.token(false).await;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "oblet-coordinator");
    let forged = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let refused = place.enrolment.admit(&place.application(&token, &forged), place.now).await.unwrap_err();
    assert!(matches!(refused, EnrolmentError::Signing(SigningError::Forged(_))), "{refused}");
    let audited = place.audited().await;
    assert!(audited.iter().any(|(_, detail)| detail.contains("oblet-coordinator")), "{audited:?}");
}

#[tokio::test]
async fn a_token_that_expired_was_revoked_or_never_was_is_refused() {
    let mut place = Place::new().await;
    let unknown = place.ask("a token of somebody", |_| {}).await.unwrap_err();
    assert!(matches!(unknown, EnrolmentError::UnknownToken), "{unknown}");
    let token = place.token(false).await;
    place.now += 60 * MINUTE;
    assert!(matches!(place.ask(&token, |_| {}).await, Err(EnrolmentError::Expired(_))));
    let token = place.token(false).await;
    let mut transaction = place.enrolment.store.begin().await.unwrap();
    assert!(Enrolment::revoke(&mut transaction, place.host, "admin").await.unwrap());
    transaction.commit().await.unwrap();
    assert!(matches!(place.ask(&token, |_| {}).await, Err(EnrolmentError::TokenRevoked)));
}

#[tokio::test]
async fn a_revoked_host_is_not_renewed_until_a_fresh_token_enrols_it() {
    let place = Place::new().await;
    let request = Requested::generate().unwrap().request_pem;
    place.enrolment.renew(place.host, &request).await.unwrap();
    let mut transaction = place.enrolment.store.begin().await.unwrap();
    Enrolment::revoke(&mut transaction, place.host, "admin").await.unwrap();
    transaction.commit().await.unwrap();
    assert!(matches!(place.enrolment.renew(place.host, &request).await, Err(EnrolmentError::HostRevoked(_))));
    place.ask(&place.token(false).await, |_| {}).await.unwrap();
    place.enrolment.renew(place.host, &request).await.unwrap();
}
