use serde_json::{Value, json};

use crate::cli::{
    console::{
        error::CliError,
        output::{Output, Shape},
        table::text,
    },
    frame::context::Context,
};

pub(crate) const INFO: &str = "api/v2/info";
const OWN: &str = env!("CARGO_PKG_VERSION");

/// The version of this program is told even if the coordinator does not answer.
pub(crate) async fn run(output: &Output, context: Result<&Context<'_>, CliError>) -> Result<(), CliError> {
    let asked = match &context {
        Ok(context) => context.client.get("ask the coordinator for its version", INFO).await,
        Err(_) => Ok(Value::Null),
    };
    let info = asked.as_ref().ok().cloned().unwrap_or_default();
    let url = context.as_ref().ok().map(|context| context.client.url());
    let data = json!({
        "client": {"buildVersion": OWN},
        "coordinator": {"url": url, "product": info.get("product"), "buildVersion": info.get("buildVersion")},
    });
    match output.shape() {
        Shape::Data => output.data(&data)?,
        _ => output.fields([
            ("Client", OWN.to_owned()),
            ("Coordinator", text(info.get("buildVersion"))),
            ("URL", url.unwrap_or("-").to_owned()),
        ])?,
    }
    context.and(asked).map(|_| ())
}
