//! Holds every answer that a test of this program gets against the description of the API: its status is described for
//! the operation, and its body has the members that the schema names, and no others.

use axum::http::{Method, StatusCode};
use oblet::api::openapi;
use serde_json::{Map, Value};
use std::sync::LazyLock;

static DESCRIBED: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(openapi()).unwrap());

/// Makes the description: later it would hold up what a test does at the same time.
pub(crate) fn prepare() {
    LazyLock::force(&DESCRIBED);
}

/// Panics if the description does not know the answer. What lies under no described path is not looked at.
pub(crate) fn check(method: &Method, path: &str, status: StatusCode, content_type: &str, body: &str) {
    let Some(operation) = operation(method, path) else { return };
    let place = format!("{method} {path}: {status}");
    let response = &operation["responses"][status.as_str()];
    assert!(!response.is_null(), "{place} is not described: {body}");
    if content_type != "application/json" {
        return;
    }
    let schema = &resolved(response)["content"]["application/json"]["schema"];
    if schema.is_null() {
        return;
    }
    let value: Value = serde_json::from_str(body).unwrap();
    if let Err(problem) = fits(schema, &value, "$") {
        panic!("{place} differs from its description: {problem}\n{body}");
    }
}

/// The same for an event of a stream.
pub(crate) fn check_event(path: &str, name: &str, data: &Value) {
    let answers = &operation(&Method::GET, path).unwrap()["responses"]["200"];
    let events = resolved(&answers["content"]["text/event-stream"]["schema"])["oneOf"].as_array().unwrap();
    let is_described = |event: &&Value| event["properties"]["event"]["enum"][0] == name;
    let event = events.iter().find(is_described).unwrap_or_else(|| panic!("{path} has no event {name}"));
    let schema = &event["properties"]["data"]["contentSchema"];
    assert!(!schema.is_null(), "the event {name} of {path} is not described");
    if let Err(problem) = fits(schema, data, "$") {
        panic!("an event of {path} differs from its description: {problem}\n{data}");
    }
}

fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let path = path.split('?').next().unwrap();
    // Some are served without their prefix as well.
    let full = if path.starts_with("/compute/") { format!("/api/v2{path}") } else { path.to_owned() };
    let parts: Vec<&str> = full.split('/').collect();
    let matches = |template: &str| {
        let names: Vec<&str> = template.split('/').collect();
        names.len() == parts.len() && names.iter().zip(&parts).all(|(name, part)| name.starts_with('{') || name == part)
    };
    let paths = DESCRIBED["paths"].as_object().unwrap();
    // A path without parameters goes before one with.
    let mut found: Vec<&String> = paths.keys().filter(|template| matches(template)).collect();
    found.sort_by_key(|template| template.matches('{').count());
    let operation = &paths[*found.first()?][method.as_str().to_ascii_lowercase()];
    operation.is_object().then_some(operation)
}

fn resolved(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(reference) => DESCRIBED.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// Members of an object with their schemas, and those that it must have, over all of its parts.
fn members(schema: &'static Value, all: &mut Map<String, Value>, required: &mut Vec<String>) {
    let schema = resolved(schema);
    all.extend(
        schema["properties"].as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())),
    );
    required.extend(schema["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned()));
    schema["allOf"].as_array().into_iter().flatten().for_each(|part| members(part, all, required));
}

fn fits(schema: &'static Value, value: &Value, place: &str) -> Result<(), String> {
    let schema = resolved(schema);
    if let Some(choices) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let tried: Vec<_> = choices.iter().map(|choice| fits(choice, value, place)).collect();
        return if tried.iter().any(Result::is_ok) { Ok(()) } else { Err(format!("{place}: {tried:?}")) };
    }
    if let Some(values) = schema["enum"].as_array() {
        return if values.contains(value) { Ok(()) } else { Err(format!("{place} is {value}, not one of {values:?}")) };
    }
    if !is_of_type(&schema["type"], value) {
        return Err(format!("{place} is {value}, not of type {}", schema["type"]));
    }
    match value {
        Value::Array(items) if !schema["items"].is_null() => {
            let mut items = items.iter().enumerate();
            items.try_for_each(|(index, item)| fits(&schema["items"], item, &format!("{place}[{index}]")))
        }
        Value::Object(object) => {
            let (mut all, mut required) = (Map::new(), Vec::new());
            members(schema, &mut all, &mut required);
            if let Some(absent) = required.iter().find(|name| !object.contains_key(*name)) {
                return Err(format!("{place} has no member {absent}"));
            }
            if all.is_empty() {
                return Ok(());
            }
            for (name, member) in object {
                let schema =
                    all.get(name).ok_or_else(|| format!("{place} has the member {name}, which is not described"))?;
                // Leaked, because schemas are followed by reference: a test describes few of them.
                fits(Box::leak(Box::new(schema.clone())), member, &format!("{place}.{name}"))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn is_of_type(described: &Value, value: &Value) -> bool {
    let one = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("a type {other} is not known here"),
    };
    match described {
        Value::String(name) => one(name),
        Value::Array(names) => names.iter().any(|name| one(name.as_str().unwrap())),
        _ => true,
    }
}

#[test]
#[should_panic(expected = "418 I'm a teapot is not described")]
fn a_status_that_is_not_described_is_found() {
    check(&Method::GET, "/api/v2/compute/hosts?page=1", StatusCode::IM_A_TEAPOT, "application/json", "{}");
}

#[test]
#[should_panic(expected = "the member surprise, which is not described")]
fn a_member_that_is_not_described_is_found() {
    let answer = r#"{"data": {"product": "oblet", "buildVersion": "1", "surprise": 1}, "successful": true, "timestamp": "",
        "duration": 1, "status": 200, "traceId": "", "server": ""}"#;
    check(&Method::GET, "/api/v2/info", StatusCode::OK, "application/json", answer);
}
