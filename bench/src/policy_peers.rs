//! Cedar, Rego and Casbin on the questions of `policy`.

use std::{collections::HashSet, fmt::Write, hint::black_box};

use anyhow::Context as _;
use casbin::{CoreApi, MgmtApi};

use crate::policy::Question;

type Ask<'a> = Box<dyn FnMut(usize) -> anyhow::Result<bool> + 'a>;

pub(crate) fn add<'a>(
    contestant: &mut dyn FnMut(&'static str, Ask<'a>),
    rules: usize,
    questions: &[Question],
) -> anyhow::Result<()> {
    contestant("cedar-policy", cedar(rules, questions)?);
    contestant("regorus, rules by user", regorus(rules, questions)?);
    contestant("casbin, acl with keyMatch", casbin(rules, questions)?);
    Ok(())
}

fn cedar<'a>(rules: usize, questions: &[Question]) -> anyhow::Result<Ask<'a>> {
    use cedar_policy::{Authorizer, Context, Decision, Entities, Entity, EntityUid, PolicySet, Request};
    let uid = |text: String| text.parse::<EntityUid>().context("entity uid");
    let mut text = String::new();
    for n in 0..rules {
        writeln!(
            text,
            "permit(principal == User::\"{n}\", action in [Action::\"read\", Action::\"write\"], resource in Folder::\"{n}\");"
        )?;
    }
    let policies: PolicySet = text.parse()?;
    let mut entities = Vec::with_capacity(rules);
    for n in 0..rules {
        let parents = HashSet::from([uid(format!("Folder::\"{n}\""))?]);
        entities.push(Entity::new_no_attrs(uid(format!("File::\"{n}\""))?, parents));
    }
    let entities = Entities::from_entities(entities, None)?;
    let mut requests = Vec::with_capacity(questions.len());
    for question in questions {
        requests.push(Request::new(
            uid(format!("User::\"{}\"", question.user))?,
            uid("Action::\"read\"".to_owned())?,
            uid(format!("File::\"{}\"", question.folder))?,
            Context::empty(),
            None,
        )?);
    }
    let authorizer = Authorizer::new();
    Ok(Box::new(move |n| {
        let request = requests.get(n).context("question")?;
        Ok(black_box(authorizer.is_authorized(request, &policies, &entities)).decision() == Decision::Allow)
    }))
}

const REGO: &str = r#"package p
import rego.v1
default allow := false
allow if {
    some rule in data.rules[input.user]
    input.action in rule.actions
    startswith(input.path, rule.prefix)
}
"#;

fn regorus<'a>(rules: usize, questions: &[Question]) -> anyhow::Result<Ask<'a>> {
    use regorus::{Engine, Value};
    let mut data = String::from("{\"rules\":{");
    for n in 0..rules {
        let comma = if n == 0 { "" } else { "," };
        write!(
            data,
            "{comma}\"{n}\":[{{\"actions\":[\"read\",\"write\"],\"prefix\":\"/data/projects/{n}/\"}}]"
        )?;
    }
    data.push_str("}}");
    let mut engine = Engine::new();
    engine.add_policy("p.rego".to_owned(), REGO.to_owned())?;
    engine.add_data(Value::from_json_str(&data)?)?;
    let mut inputs = Vec::with_capacity(questions.len());
    for question in questions {
        inputs.push(Value::from_json_str(&format!(
            "{{\"user\":\"{}\",\"action\":\"read\",\"path\":\"/data/projects/{}/notes/today.txt\"}}",
            question.user, question.folder
        ))?);
    }
    Ok(Box::new(move |n| {
        engine.set_input(inputs.get(n).context("question")?.clone());
        let value = black_box(engine.eval_rule("data.p.allow".to_owned())?);
        Ok(value == Value::Bool(true))
    }))
}

const CASBIN: &str = "
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && r.act == p.act && keyMatch(r.obj, p.obj)
";

fn casbin<'a>(rules: usize, questions: &[Question]) -> anyhow::Result<Ask<'a>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let enforcer = runtime.block_on(async {
        let model = casbin::DefaultModel::from_str(CASBIN).await?;
        let mut enforcer = casbin::Enforcer::new(model, casbin::MemoryAdapter::default()).await?;
        let policies: Vec<_> = (0..rules)
            .map(|n| vec![format!("u{n}"), format!("/data/projects/{n}/*"), "read".to_owned()])
            .collect();
        enforcer.add_policies(policies).await?;
        anyhow::Ok(enforcer)
    })?;
    let requests: Vec<_> = questions
        .iter()
        .map(|q| (format!("u{}", q.user), format!("/data/projects/{}/notes/today.txt", q.folder)))
        .collect();
    Ok(Box::new(move |n| {
        let (user, path) = requests.get(n).context("question")?;
        Ok(black_box(enforcer.enforce((user.as_str(), path.as_str(), "read"))?))
    }))
}
