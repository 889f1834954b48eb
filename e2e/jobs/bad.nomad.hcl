# A task that cannot start: nothing makes its environment.

job "bad" {
  type = "batch"

  group "bad" {
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "main" {
      driver = "promptflow"

      config {
        environment = "no-such-environment"
        command     = "/bin/true"
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
