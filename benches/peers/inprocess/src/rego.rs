//! The list as users of OPA write one: rules as data, and a policy that takes the first that matches.
//!
//! Invariant: policy and data are parsed and compiled, and inputs are made, before any evaluation.
//! Not here: OPA itself, which is written in Go; regorus evaluates its language in Rust.

use std::sync::Arc;

use anyhow::{Result, bail};
use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::vm::RegoVM;
use regorus::{Engine, Value};

use crate::{Contestant, List};

/// An array comprehension keeps the order of what it goes through.
const IN_ORDER: &str = "
package firewall

default allow := true

allow := matching[0].allow

matching := [rule | some rule in data.rules; net.cidr_contains(rule.range, input.ip)]
";

/// Another program has settled the order; what is left is a list of what is denied.
const FLATTENED: &str = "
package firewall

default allow := true

allow := false if {
	some range in data.denied
	net.cidr_contains(range, input.ip)
}
";

const ALLOW: &str = "data.firewall.allow";

fn text(value: &str) -> Value {
    Value::String(value.into())
}

fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::from(
        fields.into_iter().map(|(name, value)| (text(name), value)).collect::<std::collections::BTreeMap<_, _>>(),
    )
}

fn data(list: &List) -> Value {
    let rules: Vec<Value> = list
        .rules
        .iter()
        .map(|(range, allow)| object([("range", text(range)), ("allow", Value::Bool(*allow))]))
        .collect();
    let denied: Vec<Value> = list.denied.iter().map(|range| text(range)).collect();
    object([("rules", Value::from(rules)), ("denied", Value::from(denied))])
}

fn allowed(value: &Value) -> Result<bool> {
    match value {
        Value::Bool(allowed) => Ok(*allowed),
        other => bail!("the policy answered `{other}`"),
    }
}

/// An engine with policy and data.
fn engine(policy: &str, data: &Value) -> Result<Engine> {
    let mut engine = Engine::new();
    engine.add_policy("firewall.rego".to_owned(), policy.to_owned())?;
    engine.add_data(data.clone())?;
    Ok(engine)
}

/// The engine of its documentation, which walks the policy's tree.
fn interpreted(name: &'static str, policy: &str, data: &Value, inputs: &Arc<[Value]>) -> Result<Contestant> {
    let (mut engine, inputs) = (engine(policy, data)?, Arc::clone(inputs));
    Ok(Contestant::new(name, move |at| {
        engine.set_input(inputs.get(at).cloned().unwrap_or(Value::Undefined));
        allowed(&engine.eval_rule(ALLOW.to_owned())?)
    }))
}

/// Its virtual machine, for which a policy is compiled.
fn compiled(name: &'static str, policy: &str, data: &Value, inputs: &Arc<[Value]>) -> Result<Contestant> {
    let program =
        Compiler::compile_from_policy(&engine(policy, data)?.compile_with_entrypoint(&ALLOW.into())?, &[ALLOW])?;
    let (mut machine, inputs) = (RegoVM::new(), Arc::clone(inputs));
    // 25,000 by default, too few for 10,000 ranges.
    machine.set_max_instructions(usize::MAX);
    machine.load_program(program);
    machine.set_data(data.clone())?;
    Ok(Contestant::new(name, move |at| {
        machine.set_input(inputs.get(at).cloned().unwrap_or(Value::Undefined));
        allowed(&machine.execute()?)
    }))
}

/// regorus on the list in order, and on what is left of it when flattened.
pub(crate) fn contestants(list: &List) -> Result<Vec<Contestant>> {
    let data = data(list);
    let inputs = list.questions.iter().map(|question| object([("ip", text(&question.address))])).collect();
    Ok(vec![
        interpreted("regorus, in order, interpreted", IN_ORDER, &data, &inputs)?,
        compiled("regorus, in order, compiled", IN_ORDER, &data, &inputs)?,
        compiled("regorus, flattened, compiled", FLATTENED, &data, &inputs)?,
    ])
}
