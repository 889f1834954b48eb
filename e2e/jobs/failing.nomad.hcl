# A task that always fails: it is restarted once where it is, then rescheduled once, then given up.

job "failing" {
  type = "batch"

  group "failing" {
    restart {
      attempts = 1
      interval = "10m"
      delay    = "1s"
      mode     = "fail"
    }

    # Five seconds is the shortest delay that a server takes.
    reschedule {
      attempts       = 1
      interval       = "1h"
      delay          = "5s"
      delay_function = "constant"
      unlimited      = false
    }

    task "main" {
      driver = "promptflow"

      config {
        environment = "busybox"
        command     = "/bin/sh"
        args        = ["-c", "exit 7"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
