//! What keeps pods running: wanted, present and ready counts beside the template's images.

use prost::Message;
use proto::{
    Kind,
    k8s::core::v1::{PodTemplateSpec, ReplicationController},
};

use super::{AGE, Column, NAME, Row, Sheet, age, selector, text};

pub static REPLICATION_CONTROLLERS: Sheet = sheet!(COLUMNS, ReplicationController, replication_controller);

const COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Desired", "Pods wanted."),
    Column::integer("Current", "Pods that exist."),
    Column::integer("Ready", "Pods that are ready."),
    AGE,
    Column::text("Containers", "Names of the template's containers.").wide(),
    Column::text("Images", "Images of the template's containers.").wide(),
    Column::text("Selector", "The labels of the pods it counts.").wide(),
];

fn replication_controller(controller: &ReplicationController, now: i64) -> Row {
    let spec = controller.spec.clone().unwrap_or_default();
    let status = controller.status.clone().unwrap_or_default();
    let (names, images) = containers(spec.template.as_ref());
    Row::of([
        text(&controller.meta().name),
        i64::from(spec.replicas.unwrap_or_default()).into(),
        i64::from(status.replicas).into(),
        i64::from(status.ready_replicas).into(),
        age(controller.meta().creation_timestamp.as_ref(), now).into(),
        names.into(),
        images.into(),
        selector(&spec.selector).into(),
    ])
}

fn containers(template: Option<&PodTemplateSpec>) -> (String, String) {
    let containers = template.and_then(|template| template.spec.as_ref()).map_or(&[][..], |spec| &spec.containers);
    let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
    let images: Vec<&str> = containers.iter().map(|container| container.image.as_str()).collect();
    (names.join(","), images.join(","))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proto::k8s::core::v1::{Container, PodSpec, ReplicationControllerSpec, ReplicationControllerStatus};

    use super::*;

    #[test]
    fn a_controller_shows_wanted_present_and_ready_pods() {
        let container =
            |name: &str, image: &str| Container { name: name.into(), image: image.into(), ..Default::default() };
        let containers = vec![container("web", "web:1"), container("log", "log:2")];
        let template =
            PodTemplateSpec { spec: Some(PodSpec { containers, ..Default::default() }), ..Default::default() };
        let mut controller = ReplicationController {
            spec: Some(ReplicationControllerSpec {
                replicas: Some(3),
                selector: [("app".to_owned(), "web".to_owned())].into(),
                template: Some(template),
                ..Default::default()
            }),
            status: Some(ReplicationControllerStatus { replicas: 2, ready_replicas: 1, ..Default::default() }),
            ..Default::default()
        };
        controller.meta_mut().name = "web".into();
        expect![[r#"
            Name        web
            Desired     3
            Current     2
            Ready       1
            Age         <unknown>
            Containers  web,log
            Images      web:1,log:2
            Selector    app=web
        "#]]
        .assert_eq(&super::super::show::row(&REPLICATION_CONTROLLERS, &replication_controller(&controller, 0)));
    }
}
