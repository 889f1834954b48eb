# Three tasks of one allocation: one that ends before the main one starts, the main one, and one that runs when it has ended. They meet in
# the folder that they share.

job "lifecycle" {
  type = "batch"

  group "lifecycle" {
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "before" {
      driver = "promptflow"

      lifecycle {
        hook = "prestart"
      }

      config {
        environment = "busybox"
        command     = "/bin/sh"
        args        = ["-c", "echo before > /alloc/data/told"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }

    task "main" {
      driver = "promptflow"
      user   = "worker"

      config {
        environment = "busybox"
        command     = "/bin/sh"
        args        = ["-c", "cat /alloc/data/told; id -un; test ! -e /alloc/logs/forbidden && ! touch /alloc/logs/forbidden"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }

    task "after" {
      driver = "promptflow"

      lifecycle {
        hook = "poststop"
      }

      config {
        environment = "busybox"
        command     = "/bin/sh"
        args        = ["-c", "cat /alloc/data/told; echo after"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
