//! `/api/v2/compute/hosts/enroll`: where a host brings its token. The token is all that lets it in, so whoever is refused
//! too often is locked out by address, as those who guess passwords are.

use crate::{
    api::frame::{
        envelope::{Envelope, ErrorEnvelope, Reply, ocp_time},
        error::{ApiError, code},
        extract::JsonBody,
        limits::check_text,
        state::ApiState,
        trace::TraceId,
    },
    coordinator::{
        enrolment::{Application, EnrolmentError},
        store::now_micros,
    },
    telemetry::chain,
    tls::SigningError,
};
use axum::{
    Extension,
    extract::{ConnectInfo, State},
    http::StatusCode,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Needs no user.
pub(in crate::api) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(enroll))
}

/// Under which failures are counted: a name that no user can have, because a login ends it at the colon.
const GUESSER: &str = "token:";

const LONGEST_TOKEN: usize = 128;
/// In bytes; one for a key of 4096 bits has 1,700.
const LONGEST_REQUEST: usize = 16 << 10;

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EnrolRequest {
    #[schema(max_length = 128)]
    token: String,
    /// PKCS #10 in PEM. It may request nothing but a certificate for its key.
    #[schema(max_length = 16384)]
    request_pem: String,
    /// The time on the host.
    #[schema(value_type = String, format = "date-time")]
    time: Timestamp,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EnrolledHost {
    /// Address of the host, taken from the token.
    address: String,
    certificate_pem: String,
    /// Certificate of the authority that issues the certificates of coordinators.
    authority_pem: String,
    serial: String,
    expire_time: String,
}

/// Gives a host its certificate for a one-time token.
#[utoipa::path(
    post, path = "/api/v2/compute/hosts/enroll", tag = "enrolment", operation_id = "enrollHost", security(),
    request_body = EnrolRequest,
    responses(
        (status = 200, description = "Done; the token is used up.", body = Envelope<EnrolledHost>),
        (status = 400, description = "The signing request cannot be read, or asks for more than the host is entitled to.", body = ErrorEnvelope),
        (status = 401, description = "The token is unknown.", body = ErrorEnvelope),
        (status = 403, description = "The token is for another host.", body = ErrorEnvelope),
        (status = 409, description = "The token was used, was revoked or has expired, or the clocks differ by more than five minutes.", body = ErrorEnvelope),
        (status = 429, description = "Too many requests from this address were refused.", body = ErrorEnvelope),
    ),
)]
async fn enroll(
    State(state): State<ApiState>,
    Extension(trace): Extension<TraceId>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    JsonBody(body): JsonBody<EnrolRequest>,
) -> Result<Reply<EnrolledHost>, ApiError> {
    let source = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Extension(ConnectInfo(peer))| peer.ip());
    let source = source.to_canonical();
    let who = (GUESSER.to_owned(), source);
    if let Some(left) = state.gate.locked_for(&who) {
        let text = format_args!("too many hosts from {source} were refused");
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, code::INVALID_REQUEST, text)
            .retry_after(left)
            .advise("wait five minutes, then do what the first error said"));
    }
    check_text("token", Some(&body.token), LONGEST_TOKEN)?;
    if body.request_pem.len() > LONGEST_REQUEST {
        return Err(ApiError::invalid("requestPem", format_args!("has at most {LONGEST_REQUEST} bytes")));
    }
    let application = Application {
        token: &body.token,
        request_pem: &body.request_pem,
        host_time: body.time.as_microsecond(),
        source,
        trace_id: trace.as_str(),
    };
    let enrolment = &state.settings.enrolment;
    let admission = match enrolment.admit(&application, now_micros()).await {
        Ok(admission) => admission,
        Err(error) => {
            let refused = ApiError::from(error);
            if refused.status.is_client_error() {
                state.gate.count_failure(who);
            }
            return Err(refused);
        }
    };
    Ok(Reply(EnrolledHost {
        address: admission.address.to_string(),
        certificate_pem: admission.certificate_pem,
        authority_pem: enrolment.authority_pem().to_owned(),
        serial: admission.facts.serial,
        expire_time: ocp_time(admission.facts.not_after),
    }))
}

const FRESH: &str = "ask for another token with: oblet host add --token";

impl From<EnrolmentError> for ApiError {
    fn from(error: EnrolmentError) -> Self {
        let text = chain(&error);
        let refuse = |status, next_move: &str| Self::new(status, code::INVALID_REQUEST, &text).advise(next_move);
        let stolen = format!("{FRESH}; if nobody of yours has used this one, it was stolen: oblet host revoke");
        match error {
            EnrolmentError::UnknownToken => refuse(StatusCode::UNAUTHORIZED, FRESH),
            EnrolmentError::Used(_) => refuse(StatusCode::CONFLICT, &stolen),
            EnrolmentError::TokenRevoked | EnrolmentError::Expired(_) | EnrolmentError::HostRevoked(_) => {
                refuse(StatusCode::CONFLICT, FRESH)
            }
            EnrolmentError::OtherSource { .. } => refuse(
                StatusCode::FORBIDDEN,
                "run the line on the host that it was made for; if that is behind a gateway, make the token with \
                 --any-source",
            ),
            EnrolmentError::Clock { .. } => refuse(
                StatusCode::CONFLICT,
                "set the clock of the host (chronyc makestep), then run the same line again",
            ),
            EnrolmentError::Signing(SigningError::Unreadable(_) | SigningError::Forged(_)) => {
                refuse(StatusCode::BAD_REQUEST, "use oblet-agent enroll, which asks for nothing but its certificate")
            }
            EnrolmentError::Signing(SigningError::Sign(_)) | EnrolmentError::Random => Self::internal(&error),
            EnrolmentError::Store(error) => error.into(),
        }
    }
}
